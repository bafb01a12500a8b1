"""Where documents come from: a mirror folder, the Hub or the samples, by one loader."""

from merge_hooks.moved import door

__all__ = ["Documents", "DocumentsError"]
__getattr__ = door(
    __name__,
    {"Documents": "lm_eval_iberian.documents.loader", "DocumentsError": "lm_eval_iberian.errors"},
    "lm_eval_iberian.documents.loader",
)
