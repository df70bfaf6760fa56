"""Packs a trained model's weights for others to start from: python tools/pack_weights.py MODEL OUT

MODEL is a model's folder, OUT the .npz that `init_from=` takes. A mask network's settings and step
go into a .json beside it, so that `mask_model=` takes it too. odfs_jax/weights/README.md tells how
those that come with the program were made.
"""

import argparse
import json
from pathlib import Path

from odfs_jax.saved_model import load_model, save_weights


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("out", type=Path)
    arguments = arguments.parse_args()
    model = load_model(arguments.model)
    save_weights(arguments.out, model.params)
    if model.makes_masks:
        about = json.dumps({"step": model.step, "model": model.config}, indent=1)
        arguments.out.with_suffix(".json").write_text(f"{about}\n")
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {model.step} iterations, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
