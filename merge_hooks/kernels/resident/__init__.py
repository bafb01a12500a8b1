"""Kernels that read sources which stay in memory, in one pass over all of them."""
