"""Files as DeepFaceLab writes them, byte by byte."""

import enum
import pickle
import struct
import sys
import types

import cv2
import numpy as np

from odfs_jax.data.media import png
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import MEAN_FACE, alignment_matrix
from odfs_jax.faces.types import FaceType


def _enumeration(module, name, members):
    """An enumeration that pickle finds by its name, as in the program that has it."""
    made = enum.IntEnum(name, members, module=module)
    for part in (module.split(".")[0], module):
        sys.modules.setdefault(part, types.ModuleType(part))
    setattr(sys.modules[module], name, made)
    return made


SAMPLE_TYPE = _enumeration("samplelib.Sample", "SampleType", {"FACE": 1})
FACE_TYPE = _enumeration("facelib.FaceType", "FaceType", {"FULL": 2, "WHOLE_FACE": 4})


def frame_points(shift=(200.0, 120.0), scale=160.0):
    """68 points of a frontal face in a frame."""
    angle = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.49 + 0.5 * np.cos(angle), 0.35 + 0.6 * np.sin(angle)], -1)
    return np.concatenate([jaw, MEAN_FACE]) * scale + shift


def picture(size=64, seed=0):
    """uint8 BGR [size, size, 3], smooth."""
    coarse = np.random.default_rng(seed).integers(30, 226, (5, 5, 3)).astype(np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def face_dict(face_type="whole_face", size=64, kind=FaceType.DFL_WHOLE, **changes):
    """The data of an aligned picture."""
    points = frame_points()
    matrix = alignment_matrix(points, kind, size)
    data = {
        "face_type": face_type,
        "landmarks": transform(matrix, points).tolist(),
        "source_filename": "00012.png",
        "source_rect": np.array([180, 100, 400, 330]),
        "source_landmarks": points.tolist(),
        "image_to_face_mat": matrix,
        "eyebrows_expand_mod": 1.0,
    }
    data |= changes
    return {key: value for key, value in data.items() if value is not None}


def jpeg(data, image=None, protocol=4):
    """A JPEG whose APP15 has `data` pickled, or these bytes."""
    payload = data if isinstance(data, bytes) else pickle.dumps(data, protocol)
    plain = cv2.imencode(".jpg", picture() if image is None else image)[1].tobytes()
    end = 4 + struct.unpack(">H", plain[4:6])[0]  # behind APP0
    return plain[:end] + b"\xff\xef" + struct.pack(">H", len(payload) + 2) + payload + plain[end:]


def old_png(data, image=None):
    """A PNG of 2018 with `data` in its chunk."""
    content = cv2.imencode(".png", picture() if image is None else image)[1].tobytes()
    return png.with_chunk(content, b"fcWp", pickle.dumps(data, 3))


def write_pak(path, faces, lie=0, version=1):
    """A faceset.pak of [(file name, person or None, JPEG)]; `lie` is added to the offsets."""
    index = [
        {
            "sample_type": SAMPLE_TYPE(1), "filename": name,
            "face_type": FACE_TYPE(4), "shape": (64, 64, 3),
            "landmarks": frame_points().tolist(), "seg_ie_polys": {"polys": []},
            "xseg_mask": None, "xseg_mask_compressed": np.zeros(4, np.uint8),
            "eyebrows_expand_mod": 1.0, "source_filename": "00012.png", "person_name": person,
        }
        for name, person, _ in faces
    ]  # fmt: skip
    config = pickle.dumps(index, 4)
    start = 16 + len(config) + 8 * (len(faces) + 1)
    sizes = np.cumsum([0] + [len(content) for _, _, content in faces])
    offsets = [int(size) + lie for size in sizes]
    offsets[-1] = start + int(sizes[-1])  # as it is: the absolute end of the file
    table = struct.pack(f"<{len(offsets)}Q", *offsets)
    head = struct.pack("<QQ", version, len(config))
    path.write_bytes(head + config + table + b"".join(content for _, _, content in faces))
