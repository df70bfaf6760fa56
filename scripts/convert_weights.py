"""Converts weights that PyTorch saved to an .npz, which odfs-jax reads without PyTorch.

python scripts/convert_weights.py 2DFAN4-11f355bf06.pth.tar 2DFAN4.npz

The result is for landmarks.args.weights (FAN) or detector.args.weights (S3FD). Needs PyTorch; only
tensors are read from the file, no code in it is run.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from odfs_jax.data import atomic
from odfs_jax.errors import UserError
from odfs_jax.extraction.weights import read_torch


def main(source: Path, target: Path) -> None:
    if target.suffix != ".npz":
        raise UserError(f"{target}: expected a name that ends in .npz")
    state = read_torch(source)
    with atomic.replacing(target) as path:
        np.savez(path, **state)
    sys.stdout.write(f"{target}: {len(state)} arrays\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        main(arguments.source, arguments.target)
    except UserError as error:
        sys.exit(f"convert_weights: {error}")
