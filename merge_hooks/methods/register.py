"""The merge methods that this project adds to mergekit's registry.

mergekit 0.1.5 has no entry points for methods. So `register_methods` is called where we first use its registry
(`merge_hooks.planning.registry`), and wherever a process wants the same YAML to run in `mergekit-yaml`. It may be
called again, and while `mergekit.merge_methods` is still being imported, once its module `registry` is there.
"""

from __future__ import annotations

import importlib

# Name -> the module whose METHODS holds it. A new method is a file with such a dictionary, and its line here.
OURS = {
    "consensus_ta": "merge_hooks.methods.consensus",
    "consensus_ties": "merge_hooks.methods.consensus",
    "fisher": "merge_hooks.methods.fisher",
    "geometric_median": "merge_hooks.methods.geometric_median",
    "iso_c": "merge_hooks.methods.isotropic",
    "knots_ties": "merge_hooks.methods.knots",
    "knots_dare_ties": "merge_hooks.methods.knots",
}


def register_methods() -> None:
    """Register those of our methods with mergekit that are not there yet."""
    from mergekit.merge_methods.registry import register, registered_methods

    known = {method.spec.name for method in registered_methods()}
    for name in OURS.keys() - known:
        # Our modules load mergekit, and its watch calls this function while they are half imported and have nothing to
        # register yet. Whoever uses the registry calls it again.
        methods = getattr(importlib.import_module(OURS[name]), "METHODS", {})
        if name in methods:
            register(methods[name])
