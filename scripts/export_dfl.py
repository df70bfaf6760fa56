"""Writes a model, or faces, as DeepFaceLab has them: `python scripts/export_dfl.py name=NAME`."""

from odfs_jax.cli import export_dfl

if __name__ == "__main__":
    export_dfl()
