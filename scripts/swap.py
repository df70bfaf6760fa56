"""Two clips in, a swapped clip out: `python scripts/swap.py src=PATH dst=PATH out=PATH`."""

from odfs_jax.cli import swap

if __name__ == "__main__":
    swap()
