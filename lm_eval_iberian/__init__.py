"""lm_eval_iberian: score language-model merges with lm-evaluation-harness, without writing them to disk.

Nothing is imported here: this module is read at every start of the interpreter (see autoload.py).
"""

import sys

__version__ = "0.1.0"


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
