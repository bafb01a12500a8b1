"""Merge methods that we add to mergekit's."""

from merge_hooks.moved import door

__getattr__ = door(__name__, {}, "merge_hooks.kernels.choose")
