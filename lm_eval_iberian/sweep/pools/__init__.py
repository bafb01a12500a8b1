"""Where a sweep's workers live: this process, processes of this machine, a Ray cluster."""

from merge_hooks.moved import door

__getattr__ = door(__name__, {}, "lm_eval_iberian.sweep.pools.choose")
