"""Extracts the faces of a clip: `python extract.py data=src`."""

from odfs_jax.cli import extract

if __name__ == "__main__":
    extract()
