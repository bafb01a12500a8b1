"""A recipe's sources found, its stages opened."""

from merge_hooks.moved import door

__all__ = ["Resolved", "resolve"]
__getattr__ = door(__name__, {"Resolved": "merge_hooks.recipe.resolved", "resolve": "merge_hooks.resolve.resolver"})
