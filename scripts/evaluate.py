"""Measures a swapped clip: `python scripts/evaluate.py data=dst [truth=PATH]`."""

from odfs_jax.cli import evaluate

if __name__ == "__main__":
    evaluate()
