"""Facesets without a person, every face known and different; settings of the sort command."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import DictConfig

from odfs_jax.config import compose
from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.faces.types import FaceType

SIZE = 64


def make_face(rng: np.random.Generator, index: int) -> tuple[np.ndarray, FaceData]:
    """A picture of random detail and color, with random points, pose and origin."""
    coarse = rng.integers(0, 256, (int(rng.integers(3, 30)),) * 2 + (3,)).astype(np.uint8)
    picture = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    picture = (picture * rng.uniform(0.2, 1.0, 3)).astype(np.uint8)
    if index % 3 == 0:
        picture = cv2.blur(picture, (1, int(rng.integers(2, 15))))
    points = rng.uniform(0, SIZE, (68, 2))
    rect = np.concatenate([low := rng.uniform(0, 50, 2), low + rng.uniform(20, 300, 2)])
    clip = ("b.mp4", "a.mp4")[int(rng.integers(2))]
    source = Source(clip, int(rng.integers(40)), 1, 640, 480, tuple(rect.tolist()), points)
    pose = Pose(*rng.uniform(-45, 45, 3).tolist())
    return picture, FaceData(FaceType.FULL, SIZE, points, source, pose, "mtcnn", "dlib68", 1.0)


@pytest.fixture(scope="session")
def write_random() -> Callable[..., None]:
    """write(folder, count, seed, copies): random faces; the last `copies` repeat earlier ones."""

    def write(folder: Path, count: int, seed: int = 0, copies: int = 0) -> None:
        rng = np.random.default_rng(seed)
        made = [make_face(rng, index) for index in range(count - copies)]
        made += [made[7 * k] for k in range(copies)]
        for index, (picture, face) in enumerate(made):
            face = dataclasses.replace(face, score=float(index))  # no two files are equal
            write_face(folder / f"{index:05d}_0.png", picture, face)

    return write


@pytest.fixture(scope="session")
def many(tmp_path_factory, write_random) -> list[Path]:
    """200 faces, 12 of which repeat another: every key then has ties."""
    folder = tmp_path_factory.mktemp("many")
    write_random(folder, 200, copies=12)
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def configure() -> Callable[..., DictConfig]:
    """Composes the sort configuration for a workspace, with overrides."""

    def make(workspace: Path, *overrides: str) -> DictConfig:
        fixed = f"workspace={workspace}", "hardware.compilation_cache=null"
        return compose("sort", [*fixed, *overrides])

    return make
