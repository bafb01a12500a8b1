from merge_hooks.checks.preflight import check_fit as check_fit
from merge_hooks.errors import (
    EngineError as EngineError,
)
from merge_hooks.errors import (
    FisherError as FisherError,
)
from merge_hooks.errors import (
    MergeHooksError as MergeHooksError,
)
from merge_hooks.errors import (
    PreflightError as PreflightError,
)
from merge_hooks.errors import (
    RecipeError as RecipeError,
)
from merge_hooks.errors import (
    SourceError as SourceError,
)
from merge_hooks.recipe.recipe import Recipe as Recipe
from merge_hooks.recipe.recipe import read_recipe as read_recipe
from merge_hooks.recipe.resolved import Resolved as Resolved
from merge_hooks.resolve.resolver import resolve as resolve_recipe
from merge_hooks.stream.stream import Stream as Stream
from merge_hooks.stream.stream import open_stream as open_stream
from merge_hooks.tools.export import export as export_merge

PUBLIC: dict[str, str]
__all__ = [
    "EngineError", "FisherError", "MergeHooksError", "PreflightError", "Recipe", "RecipeError", "Resolved", "SourceError",
    "Stream", "check_fit", "export_merge", "open_stream", "read_recipe", "resolve_recipe",
]  # fmt: skip
