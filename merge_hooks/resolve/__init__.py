"""A recipe's sources found, its stages opened."""

from merge_hooks.moved import door

__all__ = ["Resolved", "refuse_changed", "resolve"]
__getattr__ = door(__name__, {"Resolved": "merge_hooks.recipe.resolved", "refuse_changed": "merge_hooks.resolve.resolver",
                              "resolve": "merge_hooks.resolve.resolver"})  # fmt: skip
