"""lm_eval's own back ends, fed with merged weights: the model `merged` is `merged.py`, its back ends `backends.py`."""

from merge_hooks.moved import door

__all__ = ["Merged"]
# Only who asks for the model pays for lm_eval's imports.
__getattr__ = door(__name__, {"Merged": "lm_eval_iberian.models.merged"})
