"""Renames aligned faces to an order: `python scripts/sort.py data=src by=hist_dissim`."""

from odfs_jax.cli import sort

if __name__ == "__main__":
    sort()
