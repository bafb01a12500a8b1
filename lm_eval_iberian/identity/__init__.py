"""Is this the same measurement? Everything that an answer depends on, in one object."""

from merge_hooks.moved import door

__all__ = ["Identity"]
__getattr__ = door(__name__, {"Identity": "lm_eval_iberian.identity.identity"}, "lm_eval_iberian.identity.identity")
