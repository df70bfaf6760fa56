"""Packs MTCNN's weights: python tools/pack_mtcnn.py odfs_jax/weights/detectors/mtcnn.npz

They come inside the package mtcnn 1.0.0 as pickles that lz4 compressed (`pip install '.[test]'`
brings it with joblib and lz4), and loading a pickle can run any code that is in it. So the bytes
are compared with the digests below BEFORE they are loaded, and it is those same bytes that are
then loaded: nothing but the three files that we looked at is ever unpickled, and only here.
"""

import argparse
import io
from pathlib import Path

import joblib
import numpy as np

from odfs_jax.data import atomic
from odfs_jax.faces.packaged_weights import package_file, verified

SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
# The files hold a flat list of arrays: kernel, bias and slope of each block, then kernel and bias
# of each head, in this order.
LAYERS = {
    "pnet": (("block_1", "conv"), ("block_2", "conv"), ("block_3", "conv"), "box", "face"),
    "rnet": (
        ("block_1", "conv"), ("block_2", "conv"), ("block_3", "conv"), ("block_4", "dense"),
        "box", "face",
    ),
    "onet": (
        ("block_1", "conv"), ("block_2", "conv"), ("block_3", "conv"), ("block_4", "conv"),
        ("block_5", "dense"), "box", "points", "face",
    ),
}  # fmt: skip


def read_packaged() -> dict[str, np.ndarray]:
    """The weights in the package mtcnn by our names, "pnet/params/block_1/conv/kernel" say.

    Raises UserError when the package is missing or its files are not the ones that we know.
    """
    packed: dict[str, np.ndarray] = {}
    for net, layers in LAYERS.items():
        content = verified(package_file("mtcnn", f"assets/weights/{net}.lz4"), SHA256[net])
        arrays = iter(joblib.load(io.BytesIO(content)))
        for layer in layers:
            is_block = isinstance(layer, tuple)
            name = "/".join((net, "params", *(layer if is_block else (layer,))))
            kernel = next(arrays)
            packed[f"{name}/kernel"] = kernel if is_block else np.squeeze(kernel)  # P-Net's are 1x1
            packed[f"{name}/bias"] = next(arrays)
            if is_block:
                packed[f"{net}/params/{layer[0]}/prelu/slope"] = next(arrays).reshape(-1)
    return packed


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("out", type=Path)
    out = arguments.parse_args().out
    with atomic.replacing(out) as path:
        np.savez_compressed(path, **read_packaged())
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
