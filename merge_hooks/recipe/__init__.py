"""What is written: a recipe's text, read and checked."""

from merge_hooks.moved import door

__all__ = ["Recipe", "read_recipe", "resolve"]
__getattr__ = door(
    __name__,
    {"Recipe": "merge_hooks.recipe.recipe", "read_recipe": "merge_hooks.recipe.recipe"},
    "merge_hooks.recipe.recipe",
    "merge_hooks.recipe.resolved",
    "merge_hooks.resolve.resolver",
)
