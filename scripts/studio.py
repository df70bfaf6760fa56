"""Serves the browser studio: `python scripts/studio.py workspace=PATH`."""

from odfs_jax.cli import studio

if __name__ == "__main__":
    studio()
