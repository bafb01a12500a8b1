"""What `iberian_autoload.pth` imports at interpreter start: a watch for lm_eval, and nothing else.

lm_eval 0.4.13 reads no entry points, so nothing tells it of our model and our tasks. This module puts one
finder into `sys.meta_path`. It stays silent until lm_eval imports one of the two modules named in `WATCHED`,
and then lets `lm_eval_iberian.plugin` act on the module that was just loaded.

It must cost a fraction of a millisecond and must never stop an interpreter: it imports only `sys`, and
whatever goes wrong later becomes one warning. `IBERIAN_AUTOLOAD=0` switches it off (see the `.pth` file).
"""

import sys

WATCHED = ("lm_eval.models", "lm_eval.tasks.manager", "lm_eval.api.model")


class LmEvalFinder:
    """Finds nothing by itself: it lets the other finders find, and runs the plugin after the loading."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name not in WATCHED:
            return None
        for finder in sys.meta_path:
            if finder is cls or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return cls._with_plugin(spec)
        return None

    @staticmethod
    def _with_plugin(spec):  # type: ignore[no-untyped-def]
        execute = getattr(spec.loader, "exec_module", None)
        if execute is None:
            return spec

        def exec_module(module):  # type: ignore[no-untyped-def]
            execute(module)
            from lm_eval_iberian.plugin import after_import

            after_import(module)

        spec.loader.exec_module = exec_module
        return spec


if not any(finder is LmEvalFinder for finder in sys.meta_path):
    sys.meta_path.insert(0, LmEvalFinder)
