"""merge_hooks: recipes in, weights out.

A recipe in mergekit's YAML becomes an iterator of named tensors, and everything that wants weights (vLLM's
first load, a swap, transformers, an export, a checksum) reads that iterator. See README.md in this folder.

    from merge_hooks.recipe import read_recipe
    from merge_hooks.resolve import resolve
    from merge_hooks.stream import open_stream

    for name, tensor in open_stream(resolve(read_recipe("merge.yml"))):
        ...

Nothing is imported here, so that reading this package costs nothing.
"""

import sys


class _Moved:
    """Asked last, for modules that nobody finds: old import paths work for one release (see `moved`)."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if not name.startswith("merge_hooks."):
            return None
        from merge_hooks.moved import MOVED, find

        return find(name, MOVED)


sys.meta_path.append(_Moved)
