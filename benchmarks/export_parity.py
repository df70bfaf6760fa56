"""How near exported models come to our own inference: the table of docs/export.md.

python benchmarks/export_parity.py FACES OUT [MODEL ...] [--check]

FACES holds aligned PNGs. Each MODEL is a YAML of configs/model/ at its full width with random
weights, or "demo", the network of `make demo` with weights that come with the program. OUT keeps
the DFMs, and what our inference gives; with --check they are only compared, for which another
onnxruntime needs no JAX. Differences are of values in [0, 1]: the largest and the mean of the new
face, and the largest of both masks.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

MODELS = (
    "demo",
    "h64",
    "h128",
    "df",
    "liaef128",
    "miaef128",
    "quick96",
    "saehd",
    "saehd_224",
    "amp",
)
PRECISIONS = ("float32", "float16")
COUNT = 4  # faces


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("faces", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("models", nargs="*", default=MODELS)
    arguments.add_argument("--check", action="store_true")
    given = arguments.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {COUNT} faces")
    print("| model | precision | MB | face, largest | face, mean | masks, largest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model in given.models:
        if not given.check:
            export(model, given.faces, given.out)
        known = np.load(given.out / f"{model}.npz")
        for precision in PRECISIONS:
            print(row(model, precision, given.out, known), flush=True)


def row(model: str, precision: str, out: Path, known: dict[str, np.ndarray]) -> str:
    """A row of the table, of the file that `export` wrote."""
    path = out / f"{model}_{precision}.dfm"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    found = session.run(None, {name: known[name] for name in names})
    own, face, mask = (np.abs(theirs - known[f"out{i}"]) for i, theirs in enumerate(found))
    masks = max(own.max(), mask.max())
    size = path.stat().st_size / 1e6
    figures = f"{face.max():.1e} | {face.mean():.1e} | {masks:.1e}"
    return f"| `{model}` | {precision} | {size:.1f} | {figures} |"


def export(model: str, faces: Path, out: Path) -> None:
    """Writes OUT/MODEL_PRECISION.dfm, and OUT/MODEL.npz: inputs, and what ours gives for them."""
    import cv2
    import jax
    from omegaconf import OmegaConf

    from odfs_jax.config import compose
    from odfs_jax.inference import make_swapper
    from odfs_jax.interop.export import dfm
    from odfs_jax.nets import build_net
    from odfs_jax.saved_model import load_weights, named

    chosen = "experiment=demo" if model == "demo" else f"model={model}"
    config = OmegaConf.to_container(compose("train", [chosen]).model)
    net = build_net(config)
    like = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    if model == "demo":
        weights = load_weights("bundled:ada_ben_80")
        leaves = [weights[name] for name in named(like)]
    else:
        rng = np.random.default_rng(0)
        leaves = [drawn(rng, leaf.shape) for leaf in jax.tree.leaves(like)]
    params = jax.tree.unflatten(jax.tree.structure(like), leaves)
    swapper = make_swapper(config, params, conv_impl="xla")

    side = swapper.input_spec.resolution
    files = sorted(faces.glob("*.png"))
    files = files[:: max(1, len(files) // COUNT)][:COUNT]
    pictures = [cv2.resize(cv2.imread(str(file)), (side, side)) for file in files]
    given = {"in_face:0": np.stack(pictures).astype(np.float32) / 255}
    if swapper.can_morph:
        given["morph_value:0"] = np.array([0.75], np.float32)
    auto = make_swapper(config, params)  # the programs that convert.py runs
    rgb = given["in_face:0"][..., ::-1]
    face, mask, own = jax.jit(auto.predict)(auto.params, rgb, *list(given.values())[1:])
    out.mkdir(parents=True, exist_ok=True)
    results = {f"out{i}": np.asarray(a) for i, a in enumerate((own, face[..., ::-1], mask))}
    np.savez(out / f"{model}.npz", **given, **results)
    for precision in PRECISIONS:
        content = dfm(out, swapper, {}, half=precision == "float16")
        (out / f"{model}_{precision}.dfm").write_bytes(content)


def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A random kernel that keeps a signal's size, or a random bias."""
    reach = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.1
    return rng.normal(0, reach, shape).astype(np.float32)


if __name__ == "__main__":
    main()
