"""Which pool a sweep's jobs are done in."""

from __future__ import annotations

from lm_eval_iberian.sweep.job import Job
from lm_eval_iberian.sweep.plan import Plan, engine_name
from lm_eval_iberian.sweep.pool import InProcess, Pool, Processes, environments


def choose_pool(plan: Plan, jobs: list[Job], workers: int = 1, ray_address: str | None = None) -> Pool:
    """A pool for these jobs.

    One engine is run in this process. Several, or several kinds of engine in vLLM (which does not give back all it
    took while its process lives), are run in processes of their own, or on a Ray cluster.
    """
    gpus = int(plan.sweep.model_args.get("tensor_parallel_size", 1))
    kinds = {job.engine for job in jobs}
    if ray_address is not None:
        from lm_eval_iberian.sweep.ray_pool import RayPool

        return RayPool(ray_address, workers, gpus)
    if workers == 1 and (len(kinds) == 1 or engine_name(plan.sweep.model_args) == "transformers"):
        return InProcess(plan.tasks)
    return Processes(environments(min(workers, len(jobs)), gpus))
