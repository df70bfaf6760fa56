"""Writes, removes or exports masks: `python scripts/masks.py data=dst action=apply`."""

from odfs_jax.cli import masks

if __name__ == "__main__":
    masks()
