"""Times conversion against a straightforward OpenCV/NumPy implementation, in turn, on one machine.

    python benchmarks/bench_convert.py [--report FILE.json]

One face in 1080p frames (ben of the demo, enlarged), H64, batches of 8; decoding and encoding left
out. The reference does what the 2018 converter did, one frame after the other: warps face and mask
into the whole frame, erodes and blurs there, `cv2.seamlessClone` for seamless. "network excluded"
gives both sides one constant face; included, both run the same network, the reference for one
face a call. `clone` is the Poisson blending alone.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from common import parse, show
from omegaconf import OmegaConf

from odfs_jax.cli import use_huge_pages
from odfs_jax.config import MergeConfig, compose
from odfs_jax.conversion.face_region import face_region, read_region
from odfs_jax.conversion.merge import build_merge
from odfs_jax.conversion.pipeline import FaceMerger
from odfs_jax.conversion.poisson import clone
from odfs_jax.conversion.target_faces import TargetFaces
from odfs_jax.data.aligned_png import Source
from odfs_jax.data.media.frames import Frame
from odfs_jax.evaluation.truth import frames_at, load_truth
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.hull import face_mask
from odfs_jax.inference import Swapper, make_swapper
from odfs_jax.nets import build_net

DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo"
HEIGHT, WIDTH, BATCH, FRAMES = 1080, 1920, 8, 24
PAIRS = 5  # of runs
MODES = ("hist_match", "seamless")
WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True)
class Clip:
    """Frames uint8 [1080, 1920, 3] and their faces' landmarks [68, 2]."""

    images: list[np.ndarray]
    landmarks: list[np.ndarray]


def main(report: Path | None, pairs: int) -> None:
    use_huge_pages()  # as convert.py does; the reference has them too
    h64, clip = random_h64(), demo_clip()
    networks = {
        "excluded": constant_swapper(h64),
        "included": h64,
        "included, bfloat16": random_h64("bfloat16"),
    }
    result = {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "opencv": cv2.__version__,
        "frames": f"{FRAMES} of {WIDTH}x{HEIGHT}, a face square of {face_side(clip)} pixels",
        "batch": BATCH,
        "pairs": pairs,
    }
    for mode in MODES:
        for name, network in networks.items():
            pair = ours(mode, network, clip), theirs(mode, network, clip)
            result[f"{mode}, network {name}"] = time_pairs(*pair, pairs)
    result["clone"] = time_pairs(*clones(clip), pairs)
    show(result, report)


def random_h64(precision: str = "float32") -> Swapper:
    """H64 with random weights and a mask that is solid."""
    model = OmegaConf.to_container(compose("train").model, resolve=True)
    net = build_net(model)
    face = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(net.init, jax.random.key(0), face, face)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(0, 0.02, a.shape).astype(np.float32), shapes)
    params["decoder_src"]["mask"]["out"]["conv"]["bias"] += 6.0
    return make_swapper(model, jax.device_put(params), precision)


def constant_swapper(swapper: Swapper) -> Swapper:
    """A swapper without a network: it returns one face in an oval for every input."""
    size = swapper.output_spec.resolution
    mask = np.zeros((size, size), np.float32)
    cv2.ellipse(mask, (size // 2, size // 2), (size * 2 // 5, size * 9 // 20), 0, 0, 360, 1.0, -1)
    coarse = np.random.default_rng(1).random((5, 5, 3), np.float32)
    face = np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)

    def predict(_params, faces):
        count = len(faces)
        face_, mask_ = jnp.asarray(face)[None], jnp.asarray(mask)[None, ..., None]
        return jnp.tile(face_, (count, 1, 1, 1)), jnp.tile(mask_, (count, 1, 1, 1)), None

    return Swapper(predict, {}, swapper.input_spec, swapper.output_spec, border=swapper.border)


def demo_clip() -> Clip:
    """The demo's truth frames of dst, as high as 1080p and with gray sides."""
    truth = load_truth(DEMO)[:FRAMES]
    scale, images = HEIGHT / truth[0].image.shape[0], []
    side = (WIDTH - HEIGHT) // 2
    for small in frames_at(DEMO / "dst.mp4", [t.frame for t in truth]):
        large = cv2.resize(small, (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
        images.append(cv2.copyMakeBorder(large, 0, 0, side, side, cv2.BORDER_CONSTANT, value=128))
    landmarks = [(t.landmarks + 0.5) * scale - 0.5 + (side, 0) for t in truth]
    return Clip(images, landmarks)


def face_side(clip: Clip) -> int:
    spec = random_h64().output_spec
    return round(face_region(clip.landmarks[0], spec.face_type, spec.resolution).face_side)


def ours(mode: str, swapper: Swapper, clip: Clip) -> Callable[[], None]:
    merger = FaceMerger(swapper, build_merge(swapper, settings(mode)), BATCH)

    def run() -> None:
        frames = (Frame("c.mp4", i, i, image) for i, image in enumerate(clip.images))
        faces = {
            i: [(Path("a.png"), Source("c.mp4", i, i, WIDTH, HEIGHT, (0.0,) * 4, points))]
            for i, points in enumerate(clip.landmarks)
        }
        for _ in merger.frames(frames, TargetFaces(faces)):
            pass

    return run


def settings(mode: str) -> MergeConfig:
    return MergeConfig(mode=mode, blur=50.0, erode=20.0)


def theirs(mode: str, swapper: Swapper, clip: Clip) -> Callable[[], None]:
    predict = jax.jit(swapper.predict)

    def run() -> None:
        for image, landmarks in zip(clip.images, clip.landmarks, strict=True):
            reference_merge(mode, swapper, predict, image, landmarks)

    return run


def reference_merge(
    mode: str, swapper: Swapper, predict: Callable, image: np.ndarray, landmarks: np.ndarray
) -> np.ndarray:
    """One frame as the 2018 program merges it (docs/reference_2018.md section 10), in OpenCV."""
    size, whole = swapper.output_spec.resolution, (WIDTH, HEIGHT)
    matrix = alignment_matrix(landmarks, swapper.output_spec.face_type, size)
    frame = image.astype(np.float32) / 255
    dst = cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LANCZOS4)
    face, mask = (np.array(p[0]) for p in predict(swapper.params, dst[None]))
    mask = mask[..., 0]
    if mode == "hist_match":
        face = numpy_histogram_match(face, dst, mask > 0.9)
    face = cv2.warpAffine(face, matrix, whole, flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP)
    mask = cv2.warpAffine(mask, matrix, whole, flags=WARP)
    mask[mask < 0.1] = 0
    rows, cols = np.where(mask > 0.9)
    side = min(np.ptp(rows), np.ptp(cols))
    erosion = int(side * (0.126 - side * 0.00004551365) * 0.01 * settings(mode).erode)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (erosion, erosion))
    mask = cv2.erode(mask, ellipse)
    blur = int(side * 0.10 * 0.01 * settings(mode).blur)
    if mode == "seamless":
        solid = (mask > 0.9).astype(np.uint8) * 255
        face = opencv_clone(np.rint(face.clip(0, 1) * 255).astype(np.uint8), image, solid) / 255
    mask = cv2.blur(mask, (blur, blur))[..., None]
    return np.rint((frame * (1 - mask) + face * mask).clip(0, 1) * 255).astype(np.uint8)


def numpy_histogram_match(face: np.ndarray, dst: np.ndarray, where: np.ndarray) -> np.ndarray:
    matched = np.empty_like(face)
    for channel in range(3):
        source, target = (np.rint(p[..., channel] * 255) for p in (face, dst))
        values, counts = np.unique(source[where], return_counts=True)
        wanted, wanted_counts = np.unique(target[where], return_counts=True)
        quantiles, wanted_quantiles = (np.cumsum(c) / c.sum() for c in (counts, wanted_counts))
        table = np.interp(quantiles, wanted_quantiles, wanted)
        matched[..., channel] = np.interp(source, values, table) / 255
    return matched


def opencv_clone(face: np.ndarray, image: np.ndarray, solid: np.ndarray) -> np.ndarray:
    x, y, width, height = cv2.boundingRect(solid)
    middle = (x + width // 2, y + height // 2)
    return cv2.seamlessClone(face, image, solid, middle, cv2.NORMAL_CLONE)


def clones(clip: Clip) -> tuple[Callable[[], None], Callable[[], None]]:
    """Both sides of the Poisson blending alone, of regions that the face fills as it does."""
    spec = random_h64().output_spec
    regions = [face_region(p, spec.face_type, spec.resolution) for p in clip.landmarks]
    side = max(region.side for region in regions)
    regions = [region.widened(side) for region in regions]
    pixels = [read_region(i, r) for i, r in zip(clip.images, regions, strict=True)]
    shapes = [
        face_mask(p - (r.left, r.top), side, side)
        for p, r in zip(clip.landmarks, regions, strict=True)
    ]
    faces = [np.ascontiguousarray(p[:, ::-1]) for p in pixels]

    @jax.jit
    def clone_bytes(below: jax.Array, above: jax.Array, shape: jax.Array) -> jax.Array:
        below, above = (p.astype(jnp.float32) / 255 for p in (below, above))
        return jnp.round(jnp.clip(clone(below, above, shape > 0), 0, 1) * 255).astype(jnp.uint8)

    def ours_alone() -> None:
        for start in range(0, FRAMES, BATCH):
            chunk = slice(start, start + BATCH)
            np.asarray(clone_bytes(*(np.stack(p[chunk]) for p in (pixels, faces, shapes))))

    def theirs_alone() -> None:
        for below, above, shape in zip(pixels, faces, shapes, strict=True):
            opencv_clone(above, below, shape.copy())

    return ours_alone, theirs_alone


def time_pairs(
    our_run: Callable[[], None], their_run: Callable[[], None], pairs: int
) -> dict[str, float]:
    """Medians of `pairs` runs of each, one after the other; the first of each compiles."""
    our_run(), their_run()
    times = [(seconds(our_run), seconds(their_run)) for _ in range(pairs)]
    mine, other = (statistics.median(t) for t in zip(*times, strict=True))
    return {
        "frames_per_s": round(FRAMES / mine, 1),
        "reference_frames_per_s": round(FRAMES / other, 1),
        "times_reference": round(statistics.median(b / a for a, b in times), 2),
    }


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    options = parse(__doc__, pairs=PAIRS)
    main(options.report, options.pairs)
