"""What `iberian_autoload.pth` imports at interpreter start: a watch for lm_eval and mergekit, and nothing else.

lm_eval 0.4.13 reads no entry points, so nothing tells it of our model and our tasks. mergekit 0.1.5 has none, so
nothing tells `mergekit-yaml` of our merge methods. This module puts one finder into `sys.meta_path`, which does nothing
until one of the modules in `WATCHED` is imported. Then `lm_eval_iberian.plugin` acts on the module of lm_eval that was
just loaded, or our methods are added to mergekit's registry.

It must cost a fraction of a millisecond and must never stop an interpreter. So it imports only `sys`, and whatever goes
wrong later becomes one warning. `IBERIAN_AUTOLOAD=0` switches it off (see the `.pth` file).
"""

import sys

MERGEKIT = "mergekit.merge_methods"
WATCHED = ("lm_eval.models", "lm_eval.tasks.manager", "lm_eval.api.model", "lm_eval.evaluator", MERGEKIT)


class Finder:
    """Finds nothing by itself: it lets the other finders find a module, and runs our part after it was loaded."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name not in WATCHED:
            return None
        for finder in sys.meta_path:
            if finder is cls or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return cls._with_plugin(spec, name)
        return None

    @staticmethod
    def _with_plugin(spec, name):  # type: ignore[no-untyped-def]
        execute = getattr(spec.loader, "exec_module", None)
        if execute is None:
            return spec

        def exec_module(module):  # type: ignore[no-untyped-def]
            execute(module)
            if module.__name__ != name:
                return
            if name == MERGEKIT:
                _register_merge_methods()
                return
            from lm_eval_iberian.plugin import after_import

            after_import(module)

        # One importer may serve many modules, as that of a zip file does: only this module's is changed.
        try:
            loader = object.__new__(type(spec.loader))
            loader.__dict__.update(spec.loader.__dict__)
        except (TypeError, AttributeError):
            loader = spec.loader
        loader.exec_module = exec_module
        spec.loader = loader
        return spec


def _register_merge_methods():  # type: ignore[no-untyped-def]
    """Never raises: a failure becomes one warning, and mergekit goes on without our methods."""
    try:
        from merge_hooks.planning.registry import register_methods

        register_methods()
    except Exception as error:
        import warnings

        warnings.warn(
            f"lm_eval_iberian could not register its merge methods with mergekit ({type(error).__name__}: {error}). "
            "It was checked with mergekit 0.1.5: `pip install mergekit==0.1.5`, or set IBERIAN_AUTOLOAD=0 to silence "
            "this.",
            stacklevel=2,
        )


if not any(finder is Finder for finder in sys.meta_path):
    sys.meta_path.insert(0, Finder)
