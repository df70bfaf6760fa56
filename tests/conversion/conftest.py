"""Faces without a person: 68 points, smooth pictures, and a network that returns the dst face."""

from collections.abc import Callable
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf
from workspaces import COUNT, HEIGHT, MODEL, WIDTH, WITHOUT_FACE, write_aligned, write_clip

from odfs_jax.config import ModelConfig, config_dir
from odfs_jax.faces.align import MEAN_FACE
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import Swapper
from odfs_jax.nets import build_net
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History

# Eyes of a mean face, in shares of a full face's square.
EYES = [[x, 0.4] for x in (0.3, 0.34, 0.38, 0.42, 0.38, 0.34, 0.58, 0.62, 0.66, 0.7, 0.66, 0.62)]


@pytest.fixture(scope="session")
def face_points() -> Callable[..., np.ndarray]:
    """points(centre, size, roll): [68, 2] pixels; `size` is the width of the mean face."""

    def points(centre: tuple[float, float], size: float, roll: float = 0.0) -> np.ndarray:
        angle = np.linspace(np.pi, 0, 17)
        jaw = np.stack([0.5 + 0.55 * np.cos(angle), 0.35 + 0.75 * np.sin(angle)], -1)
        shape = (np.concatenate([jaw, MEAN_FACE]) - 0.5) * size
        cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
        return shape @ np.array([[cos, sin], [-sin, cos]]) + centre

    return points


@pytest.fixture(scope="session")
def smooth_picture() -> Callable[[int, int, int], np.ndarray]:
    """picture(height, width, seed): uint8 RGB without detail that a small face would lose."""

    def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(30, 226, (4, 5, 3)).astype(np.uint8)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    return picture


@pytest.fixture(scope="session")
def disc_mask() -> Callable[[int], np.ndarray]:
    """mask(resolution): float32 [R, R, 1], a soft disc as a trained network gives it."""

    def mask(resolution: int) -> np.ndarray:
        y, x = np.mgrid[:resolution, :resolution] - (resolution - 1) / 2
        distance = np.hypot(x, y) / resolution
        return np.clip((0.4 - distance) * resolution + 0.5, 0, 1).astype(np.float32)[..., None]

    return mask


@pytest.fixture(scope="session")
def identity_swapper(disc_mask) -> Callable[..., Swapper]:
    """identity_swapper(resolution, change): returns `change` of the dst face, in a disc."""

    def swapper(resolution: int, change: Callable = lambda faces: faces, **kind) -> Swapper:
        mask = jnp.array(disc_mask(resolution))

        def predict(_params, faces):
            masks = jnp.broadcast_to(mask[None], (*faces.shape[:3], 1))
            return change(faces), masks, None

        view = FaceSpec(FaceType.FULL, resolution)
        return Swapper(predict, {}, input_spec=view, output_spec=view, **kind)

    return swapper


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A model folder: a random network whose mask is solid everywhere."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    h64 = OmegaConf.load(Path(config_dir()) / "model" / "h64.yaml")
    model = OmegaConf.merge(OmegaConf.structured(ModelConfig), h64, MODEL)
    net = build_net(OmegaConf.to_container(model))
    face = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(net.init, jax.random.key(0), face, face)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(0, 0.05, a.shape).astype(np.float32), shapes)
    for decoder in ("decoder_src", "decoder_dst"):
        params[decoder]["mask"]["out"]["conv"]["bias"] += 6.0
    checkpoints = Checkpoints(folder)
    config, metadata = {"model": OmegaConf.to_container(model)}, {"src_eyes": EYES}
    metadata["landmarkers"] = ["dlib68"]  # as `write_aligned` says of its faces
    checkpoints.save(1, {"nets": {"autoencoder": {"params": params}}}, config, metadata, History())
    checkpoints.finish()
    checkpoints.close()
    return folder


@pytest.fixture
def workspace(tmp_path, trained, face_points, smooth_picture) -> Path:
    """dst.mp4 with a tone, a face in all frames but one, and the model."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(trained)
    images = [np.roll(smooth_picture(HEIGHT, WIDTH), 5 * i, axis=1) for i in range(COUNT)]
    times = write_clip(tmp_path / "dst.mp4", images)
    for index in range(COUNT):
        if index != WITHOUT_FACE:
            points = face_points((60 + index, 50), 30, 4 * index)
            aligned = tmp_path / "dst" / "aligned" / f"{index:05d}_0.png"
            write_aligned(aligned, points, index, times[index])
    return tmp_path
