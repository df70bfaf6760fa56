"""Who a face is: an embedding whose distances are small for one person, large between two."""

from functools import cache

import dlib
import numpy as np

from odfs_jax.faces.packaged_weights import package_file

CHIP = 150  # pixels a side of the face that dlib's network reads
PADDING = 0.25  # around the points, as in its training


def embedding(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Embedding, float32 [128], of the face with `landmarks` [68, 2] (pixels) in an `image`.

    The image is uint8 RGB [H, W, 3]. Compare embeddings by Euclidean distance. Source: dlib's
    `dlib_face_recognition_resnet_model_v1`, which comes with face-recognition-models; UserError is
    raised where it is not installed. About 15 faces a second on one core.
    """
    height, width, _ = image.shape
    points = [dlib.point(*point) for point in np.rint(landmarks).astype(int).tolist()]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, width - 1, height - 1), points)
    chip = dlib.get_face_chip(image, shape, CHIP, PADDING)
    return np.array(_network().compute_face_descriptor(chip), np.float32)


@cache
def _network() -> dlib.face_recognition_model_v1:
    inner = "models/dlib_face_recognition_resnet_model_v1.dat"
    return dlib.face_recognition_model_v1(str(package_file("face_recognition_models", inner)))
