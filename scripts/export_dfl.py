"""Writes a model as DeepFaceLab reads it: `python scripts/export_dfl.py name=NAME`."""

from odfs_jax.cli import export_dfl

if __name__ == "__main__":
    export_dfl()
