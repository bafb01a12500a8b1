"""What a recipe names: checkpoints, adapters, Fisher maps; read from their files, or kept in memory."""

from merge_hooks.moved import door

__getattr__ = door(
    __name__, {}, "merge_hooks.sources.checkpoint", "merge_hooks.sources.headers", "merge_hooks.sources.hub"
)
