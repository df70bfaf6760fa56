"""Who a face is: an embedding whose distances are small for one person, large between two."""

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from odfs_jax.faces.packaged_weights import package_file
from odfs_jax.runtime.extras import extra

CHIP = 150  # pixels a side of the face that dlib's network reads
PADDING = 0.25  # around the points, as in its training


def embedding(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Embedding, float32 [128], of the face with `landmarks` [68, 2] (pixels) in an `image`.

    The image is uint8 RGB [H, W, 3]. Compare embeddings by Euclidean distance. Source: dlib's
    `dlib_face_recognition_resnet_model_v1`, which comes with face-recognition-models; UserError is
    raised where dlib, the extra `identity`, is not installed. About 15 faces a second on one core.
    """
    with extra("identity"):
        import dlib
    height, width, _ = image.shape
    points = [dlib.point(*point) for point in np.rint(landmarks).astype(int).tolist()]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, width - 1, height - 1), points)
    chip = dlib.get_face_chip(image, shape, CHIP, PADDING)
    return np.array(_network().compute_face_descriptor(chip), np.float32)


def is_installed() -> bool:
    """True where dlib is installed, so that `embedding` works."""
    return find_spec("dlib") is not None


@cache
def _network() -> Any:
    import dlib

    inner = "models/dlib_face_recognition_resnet_model_v1.dat"
    return dlib.face_recognition_model_v1(str(package_file("face_recognition_models", inner)))
