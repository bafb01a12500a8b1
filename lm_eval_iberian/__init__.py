"""lm_eval_iberian: score language-model merges with lm-evaluation-harness, without writing them to disk.

    from lm_eval_iberian import Merged, gather, paired_bootstrap, read_run      # PYTHON.md says how

Nothing is imported here: this module is read at every start of the interpreter (see autoload.py). The names of PUBLIC are
looked up when they are asked for. Their types are in __init__.pyi.
"""

import sys

__version__ = "0.1.0"
# The names that keep their meaning: name -> where it is.
PUBLIC = {
    "DocumentsError": "lm_eval_iberian.errors:DocumentsError",
    "Merged": "lm_eval_iberian.models:Merged",
    "SuiteError": "lm_eval_iberian.scores.results:SuiteError",
    "SweepError": "lm_eval_iberian.runs.errors:SweepError",
    "activate": "lm_eval_iberian.plugin:activate",
    "align": "lm_eval_iberian.scores.significance:align",
    "gather": "lm_eval_iberian.scores.suite:gather",
    "paired_bootstrap": "lm_eval_iberian.scores.significance:paired_bootstrap",
    "read_run": "lm_eval_iberian.scores.results:read_run",
    "read_sweep_run": "lm_eval_iberian.runs.run:read_sweep_run",
    "write_report": "lm_eval_iberian.pictures.write:write_report",
}
__all__ = sorted(PUBLIC)


def __getattr__(name):  # type: ignore[no-untyped-def]
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pkgutil

    return pkgutil.resolve_name(PUBLIC[name])


class _Moved:
    """Asked last, for modules that nobody finds: old import paths work for one release (see `moved`)."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if not name.startswith("lm_eval_iberian."):
            return None
        from lm_eval_iberian.moved import MOVED
        from merge_hooks.moved import find

        return find(name, MOVED)


sys.meta_path.append(_Moved)
