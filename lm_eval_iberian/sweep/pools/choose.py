"""Which pool a sweep's jobs are done in. A new pool is a file with a function like those named here, and its line here."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_iberian.models.backends import backend_of
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.job import Job
from lm_eval_iberian.sweep.plan import Plan
from lm_eval_iberian.sweep.pools.local import Pool

# name -> "module:function". The function returns a Pool, and is given: the plan; the jobs; how many engines are wanted
# (None: nothing was said); how many GPUs each takes (0: it runs on the CPU); the address of a cluster, if one was said.
POOLS = {
    "here": "lm_eval_iberian.sweep.pools.local:here",
    "processes": "lm_eval_iberian.sweep.pools.local:processes",
    "ray": "lm_eval_iberian.sweep.pools.ray:cluster",
}


def choose_pool(
    plan: Plan, jobs: Sequence[Job], workers: int | None = None, ray_address: str | None = None, pool: str | None = None
) -> Pool:
    """A pool for these jobs.

    Where none is named, one engine is run in this process. Several, or several kinds of engine in vLLM (which does not
    give back all it took while its process lives), are run in processes of their own, or on a Ray cluster.

    Args:
        workers: how many engines; None: one, or as many as the cluster takes.
        pool: a name in POOLS.
    Raises:
        SweepError: there is no pool of this name.
    """
    pool = pool or ("ray" if ray_address is not None else _own_pool(plan, jobs, workers or 1))
    if pool not in POOLS:
        raise SweepError(f"--pool {pool}: there is no such pool. There are: {', '.join(POOLS)}.")
    made: Pool = pkgutil.resolve_name(POOLS[pool])(plan, jobs, workers, gpus_each(plan.sweep.model_args), ray_address)
    return made


def _own_pool(plan: Plan, jobs: Sequence[Job], workers: int) -> str:
    """The pool on this machine."""
    kinds = {job.engine for job in jobs}
    is_one = min(workers, len(jobs)) == 1 and (len(kinds) == 1 or backend_of(plan.sweep.model_args).leaves_nothing)
    return "here" if is_one else "processes"


def gpus_each(model_args: Mapping[str, Any]) -> int:
    """How many GPUs one engine takes; 0 where it runs on the CPU."""
    backend = backend_of(model_args)
    if backend.is_elsewhere or backend.holds_model(model_args):
        return 0
    return int(model_args.get("tensor_parallel_size", 1)) * int(model_args.get("pipeline_parallel_size", 1))
