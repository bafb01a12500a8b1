"""Sweeps: many merges, one engine, nothing lost. The way of the data through this folder: README.md."""
