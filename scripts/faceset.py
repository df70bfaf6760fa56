"""Looks at, checks or packs aligned faces: `python scripts/faceset.py data=src action=verify`."""

from odfs_jax.cli import faceset

if __name__ == "__main__":
    faceset()
