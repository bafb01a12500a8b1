"""merge_hooks: recipes in, weights out.

A recipe in mergekit's YAML becomes an iterator of named tensors, and everything that wants weights (vLLM's
first load, a swap, transformers, an export, a checksum) reads that iterator. See README.md in this folder.

    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.stream.stream import open_stream

    for name, tensor in open_stream(read_recipe("merge.yml")):
        ...

Nothing is imported here, so that reading this package costs nothing.
"""
