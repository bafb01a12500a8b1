"""Which pool a sweep's jobs are done in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval_iberian.sweep.job import Job
from lm_eval_iberian.sweep.plan import Plan, engine_name, runs_on_cpu
from lm_eval_iberian.sweep.pools.local import InProcess, Pool, Processes, environments


def choose_pool(plan: Plan, jobs: list[Job], workers: int | None = None, ray_address: str | None = None) -> Pool:
    """A pool for these jobs.

    One engine is run in this process. Several, or several kinds of engine in vLLM (which does not give back all it
    took while its process lives), are run in processes of their own, or on a Ray cluster.

    Args:
        workers: how many engines; None: one, or as many as the cluster takes.
    """
    gpus = gpus_each(plan.sweep.model_args)
    if ray_address is not None:
        from lm_eval_iberian.sweep.pools.ray import RayPool

        return RayPool(ray_address, workers, gpus, len(jobs))
    workers = min(workers or 1, len(jobs))
    kinds = {job.engine for job in jobs}
    if workers == 1 and (len(kinds) == 1 or engine_name(plan.sweep.model_args) == "transformers"):
        return InProcess(plan.tasks)
    return Processes(environments(workers, gpus))


def gpus_each(model_args: Mapping[str, Any]) -> int:
    """How many GPUs one engine takes; 0 where it runs on the CPU."""
    if runs_on_cpu(model_args):
        return 0
    return int(model_args.get("tensor_parallel_size", 1)) * int(model_args.get("pipeline_parallel_size", 1))
