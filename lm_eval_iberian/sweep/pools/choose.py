"""Which pool a sweep's jobs are done in.

A new kind of pool is one file with a function that makes it from what is `Wanted`, and one line in POOLS.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.job import Job
from lm_eval_iberian.sweep.plan import Plan, engine_name, runs_on_cpu
from lm_eval_iberian.sweep.pools.local import Pool, Wanted

# Name -> the function that makes the pool: of `--pool NAME` or `--pool NAME=ADDRESS`.
POOLS = {
    "here": "lm_eval_iberian.sweep.pools.local:in_process",
    "processes": "lm_eval_iberian.sweep.pools.local:processes",
    "ray": "lm_eval_iberian.sweep.pools.ray:on_cluster",
}


def choose_pool(plan: Plan, jobs: list[Job], workers: int | None = None, pool: str | None = None) -> Pool:
    """A pool for these jobs.

    One engine is run in this process. Several, or several kinds of engine in vLLM (which does not give back all it
    took while its process lives), are run in processes of their own, or on a Ray cluster.

    Args:
        workers: how many engines; None: one, or as many as the cluster takes.
        pool: NAME or NAME=ADDRESS, of POOLS; None: "here" or "processes".
    Raises:
        SweepError: there is no pool of that name.
    """
    name, _, address = (pool or _local(plan, jobs, workers)).partition("=")
    if name not in POOLS:
        raise SweepError(f"--pool {name}: there is no such pool; there are {', '.join(POOLS)}.")
    wanted = Wanted(plan.tasks, len(jobs), workers, gpus_each(plan.sweep.model_args), address)
    made: Pool = pkgutil.resolve_name(POOLS[name])(wanted)
    return made


def _local(plan: Plan, jobs: list[Job], workers: int | None) -> str:
    """The pool of this machine for these jobs."""
    kinds = {job.engine for job in jobs}
    is_one = min(workers or 1, len(jobs)) == 1
    return (
        "here" if is_one and (len(kinds) == 1 or engine_name(plan.sweep.model_args) == "transformers") else "processes"
    )


def gpus_each(model_args: Mapping[str, Any]) -> int:
    """How many GPUs one engine takes; 0 where it runs on the CPU."""
    if runs_on_cpu(model_args):
        return 0
    return int(model_args.get("tensor_parallel_size", 1)) * int(model_args.get("pipeline_parallel_size", 1))
