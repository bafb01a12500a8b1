"""The merge methods that this project adds to mergekit's registry.

mergekit 0.1.5 has no entry points for methods. So `register_methods` is called where we first use its registry
(`merge_hooks.planning.registry`), and wherever a process wants the same YAML to run in `mergekit-yaml`. It may be
called again, and while `mergekit.merge_methods` is still being imported, once its module `registry` is there.
"""

from __future__ import annotations

NAMES = ("fisher", "knots_ties", "knots_dare_ties")


def register_methods() -> None:
    """Register those of our methods with mergekit that are not there yet."""
    from mergekit.merge_methods.registry import register, registered_methods

    from merge_hooks.methods import fisher as fisher_method
    from merge_hooks.methods import knots

    known = {method.spec.name for method in registered_methods()}
    # Our modules load mergekit, and its watch calls this function while they are half imported and have nothing to
    # register yet. Whoever uses the registry calls it again.
    ours = [getattr(fisher_method, "fisher_merge", None), *getattr(knots, "METHODS", {}).values()]
    for method in ours:
        if method is not None and method.spec.name not in known:
            register(method)
