"""Swaps the faces of a clip with a trained model: `python convert.py data=dst`."""

from odfs_jax.cli import convert

if __name__ == "__main__":
    convert()
