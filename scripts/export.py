"""Writes a model as other programs read it: `python scripts/export.py name=NAME format=dfm`."""

from odfs_jax.cli import export

if __name__ == "__main__":
    export()
