"""Frames of the synthetic actors, the detector with its default settings, the PyTorch reference."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import DictConfig

from odfs_jax.config import compose
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.landmarkers import build_landmarker

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def frames() -> dict[str, np.ndarray]:
    """Pictures (uint8 RGB) by file name."""
    paths = sorted(DATA.glob("*.jpg"))
    return {p.name: np.ascontiguousarray(cv2.imread(str(p))[..., ::-1]) for p in paths}


@pytest.fixture(scope="session")
def configure():
    """Composes the extract configuration with overrides."""

    def make(*overrides: str) -> DictConfig:
        return compose("extract", overrides)

    return make


@pytest.fixture(scope="session")
def detector(configure):
    return build_detector(configure("detector.batch_size=4").detector)


@pytest.fixture(scope="session")
def landmarker(configure):
    return build_landmarker(configure().landmarks)


@pytest.fixture(scope="session")
def dlib_landmarker(configure):
    return build_landmarker(configure("landmarks=dlib68").landmarks)


@pytest.fixture(scope="session")
def facenet():
    """`load` of benchmarks/references/facenet.py; skips where PyTorch is not installed."""
    for package in ("torch", "facenet_pytorch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    path = ROOT / "benchmarks" / "references" / "facenet.py"
    spec = importlib.util.spec_from_file_location("facenet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
