"""Weights that PyTorch saved as an .npz, which odfs-jax reads without PyTorch.

python scripts/convert_weights.py 2DFAN4-11f355bf06.pth.tar 2DFAN4.npz

The result is for landmarks.args.weights (FAN) or detector.args.weights (S3FD). Needs PyTorch; only
tensors are read from the file, no code in it is run.
"""

import sys
from pathlib import Path

import numpy as np

from odfs_jax.data import atomic
from odfs_jax.errors import UserError
from odfs_jax.extraction.torch_weights import read_torch


def main(source: Path, target: Path) -> None:
    if target.suffix != ".npz":
        raise UserError(f"{target}: expected a name that ends in .npz")
    state = read_torch(source)
    with atomic.replacing(target) as path:
        np.savez(path, **state)
    sys.stdout.write(f"{target}: {len(state)} arrays\n")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(f"convert_weights: {error}")
