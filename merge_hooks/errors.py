"""The errors of merge_hooks: one family, and each says what is wrong, where, and how to mend it."""

from __future__ import annotations


class MergeHooksError(Exception):
    """Something a user can mend. Shown as one message, never as a traceback (see `for_people`)."""

    # lm_eval_iberian.plugin's excepthook reads this attribute, so that it need not import this module.
    for_people = True


class RecipeError(MergeHooksError):
    """The recipe itself is wrong: not there, not YAML, an unknown method, a key mergekit would ignore."""


class PreflightError(MergeHooksError):
    """The recipe reads well, but these sources do not fit together, or one of them is incomplete."""


class SourceError(MergeHooksError):
    """A checkpoint or adapter cannot be read: missing, truncated, changed on disk, or holding NaN."""


class EngineError(MergeHooksError):
    """The engine (vLLM or transformers) cannot be had, or cannot do what was asked."""


class FisherError(MergeHooksError):
    """A Fisher map, or the texts it is made from, cannot be used: damaged, or made for another checkpoint."""


class UnprovedError(EngineError):
    """The engine does not compute with the merge that was put into it, or nobody can tell: no number comes from it."""
