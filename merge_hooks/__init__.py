"""merge_hooks: recipes in, weights out.

A recipe in mergekit's YAML becomes an iterator of named tensors, and everything that wants weights (vLLM's
first load, a swap, transformers, an export, a checksum) reads that iterator. See README.md in this folder.

    from merge_hooks import open_stream, read_recipe, resolve_recipe

    for name, tensor in open_stream(resolve_recipe(read_recipe("merge.yml"))):
        ...

Nothing is imported here, so that reading this package costs nothing: the names of PUBLIC are looked up when they are asked
for. Their types are in __init__.pyi.
"""

import sys

# The names that keep their meaning: name -> where it is.
PUBLIC = {
    "EngineError": "merge_hooks.errors:EngineError",
    "FisherError": "merge_hooks.errors:FisherError",
    "MergeHooksError": "merge_hooks.errors:MergeHooksError",
    "PreflightError": "merge_hooks.errors:PreflightError",
    "Recipe": "merge_hooks.recipe.recipe:Recipe",
    "RecipeError": "merge_hooks.errors:RecipeError",
    "Resolved": "merge_hooks.recipe.resolved:Resolved",
    "SourceError": "merge_hooks.errors:SourceError",
    "Stream": "merge_hooks.stream.stream:Stream",
    "check_fit": "merge_hooks.checks.preflight:check_fit",
    "export_merge": "merge_hooks.tools.export:export",
    "open_stream": "merge_hooks.stream.stream:open_stream",
    "read_recipe": "merge_hooks.recipe.recipe:read_recipe",
    "resolve_recipe": "merge_hooks.resolve.resolver:resolve",  # merge_hooks.resolve is a room
}
__all__ = sorted(PUBLIC)


def __getattr__(name: str) -> object:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pkgutil

    return pkgutil.resolve_name(PUBLIC[name])


class _Moved:
    """Asked last, for modules that nobody finds: old import paths work for one release (see `moved`)."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if not name.startswith("merge_hooks."):
            return None
        from merge_hooks.moved import MOVED, find

        return find(name, MOVED)


sys.meta_path.append(_Moved)
