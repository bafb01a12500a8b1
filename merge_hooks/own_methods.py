"""The merge methods that this project adds to mergekit's registry.

mergekit 0.1.5 has no entry points for methods: `register_methods` is called where we first use its registry
(`merge_hooks._mergekit`), and wherever else a process wants the same YAML to run in `mergekit-yaml`. It may be called
again, and while `mergekit.merge_methods` is still being imported, once its module `registry` is.
"""

from __future__ import annotations

NAMES = ("fisher",)


def register_methods() -> None:
    """Register our methods with mergekit, those that are not there yet."""
    from mergekit.merge_methods.registry import register, registered_methods

    from merge_hooks.fisher_method import fisher_merge

    known = {method.spec.name for method in registered_methods()}
    for method in (fisher_merge,):
        if method.spec.name not in known:
            register(method)
