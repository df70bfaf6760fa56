"""Files as DeepFaceLab writes them, byte by byte."""

import enum
import functools
import pickle
import struct
import sys
import types
import zlib

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


# ------------------------------------------------------------------------------------ models

OPTIONS = {"resolution": np.int64(64), "face_type": "wf", "ae_dims": 32, "e_dims": 16,
           "d_dims": np.int32(16), "d_mask_dims": 16, "batch_size": 8, "adabelief": True,
           "lr_dropout": "n", "random_warp": True, "gan_power": 0.0, "ct_mode": "none"}  # fmt: skip


def tensor_shapes(archi, ae=32, e=16, d=16, m=16, resolution=64):
    """{file: {key: shape}} of a SAEHD model, as docs/from_deepfacelab.md has them."""
    kind, _, letters = archi.partition("-")
    deep, double = "t" in letters, "d" in letters
    side = resolution // (32 if double else 16)
    code = ae if kind == "df" else 2 * ae

    def conv(files, name, size, inputs, outputs):
        files[f"{name}/weight:0"] = (size, size, inputs, outputs)
        files[f"{name}/bias:0"] = (outputs,)

    def dense(files, name, inputs, outputs):
        files[f"{name}/weight:0"], files[f"{name}/bias:0"] = (inputs, outputs), (outputs,)

    encoder = {}
    if deep:
        conv(encoder, "down1/conv1", 5, 3, e)
        for name in ("res1/conv1", "res1/conv2"):
            conv(encoder, name, 3, e, e)
        for i, (a, b) in enumerate([(e, 2 * e), (2 * e, 4 * e), (4 * e, 8 * e), (8 * e, 8 * e)]):
            conv(encoder, f"down{i + 2}/conv1", 5, a, b)
        for name in ("res5/conv1", "res5/conv2"):
            conv(encoder, name, 3, 8 * e, 8 * e)
    else:
        for i, (a, b) in enumerate([(3, e), (e, 2 * e), (2 * e, 4 * e), (4 * e, 8 * e)]):
            conv(encoder, f"down1/downs_{i}/conv1", 5, a, b)
    inter = {}
    dense(inter, "dense1", (resolution // (32 if deep else 16)) ** 2 * 8 * e, ae)
    dense(inter, "dense2", ae, side * side * code)
    if not deep:
        conv(inter, "upscale1/conv1", 3, code, 4 * code)
    decoder, z = {}, code if kind == "df" else 2 * code
    widths = [8] * (1 + deep) + [4, 2]
    for i, (a, b) in enumerate(zip([None, *widths], widths, strict=False)):
        conv(decoder, f"upscale{i}/conv1", 3, z if a is None else a * d, 4 * b * d)
        for name in (f"res{i}/conv1", f"res{i}/conv2"):
            conv(decoder, name, 3, b * d, b * d)
    masks = widths + [1] * double
    for i, (a, b) in enumerate(zip([None, *masks], masks, strict=False)):
        conv(decoder, f"upscalem{i}/conv1", 3, z if a is None else a * m, 4 * b * m)
    conv(decoder, "out_conv", 1, 2 * d, 3)
    conv(decoder, "out_convm", 1, masks[-1] * m, 1)
    for i in (1, 2, 3) if double else ():
        conv(decoder, f"out_conv{i}", 3, 2 * d, 3)
    if kind == "df":
        return {"encoder": encoder, "inter": inter, "decoder_src": decoder, "decoder_dst": decoder}
    return {"encoder": encoder, "inter_AB": inter, "inter_B": inter, "decoder": decoder}


def judge_shapes(dims, code=32):
    """{file: {key: shape}} of a U-Net discriminator that sees 8 pixels, and of one of codes."""
    gan = {
        "in_conv": (1, 1, 3, dims), "convs_0": (3, 3, dims, 2 * dims),
        "convs_1": (3, 3, 2 * dims, 4 * dims), "center_out": (1, 1, 4 * dims, 1),
        "center_conv": (1, 1, 4 * dims, 4 * dims), "upconvs_0": (3, 3, 2 * dims, 4 * dims),
        "upconvs_1": (3, 3, dims, 4 * dims), "out_conv": (1, 1, 2 * dims, 1),
    }  # fmt: skip
    of_codes = {"convs_0": (4, 4, code, 256), "out_conv": (1, 1, 256, 1)}  # codes of 4 x 4
    return {
        file: {
            f"{name}/{last}:0": shape if last == "weight" else (outputs(name, shape),)
            for name, shape in kernels.items()
            for last in ("weight", "bias")
        }
        for file, kernels in {"GAN": gan, "code_discriminator": of_codes}.items()
    }


def outputs(name, shape):
    """Of a kernel: the transposed convolutions have theirs before the inputs."""
    return shape[2] if name.startswith("upconvs") else shape[3]


def slots_of(shapes, moments, seed=3, names=None):
    """An optimizer's file for tensors {file: {key: shape}}; `moments` is {"ms": least value} say.

    `names` are what the optimizer calls the files.
    """
    rng = np.random.default_rng(seed)
    slots = {"iters:0": np.int64(1234)}
    for moment, low in moments.items():
        for file, keys in shapes.items():
            part = (names or {}).get(file, file)
            for key, shape in keys.items():
                value = rng.uniform(low, 1, shape).astype(np.float32)
                slots[f"{moment}_{part}/{key.removesuffix(':0')}_0:0"] = value
    return slots


def tensor(file, key, shape):
    """The check tensors of the whole networks, one of each name."""
    rng = np.random.RandomState(zlib.crc32(f"{file}/{key}".encode()))
    value = rng.standard_normal(shape)
    value = value / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else value * 0.1
    return value.astype(np.float32)


@functools.cache
def _tensors(archi):
    return {
        file: {key: tensor(file, key, shape) for key, shape in keys.items()}
        for file, keys in tensor_shapes(archi).items()
    }


def tensors(archi):
    """{file: {key: array}} of a small SAEHD model of 64 pixels."""
    return {file: dict(keys) for file, keys in _tensors(archi).items()}


def write_model(folder, name, kind, files, options, iteration=1234, protocol=4):
    """A model folder as DeepFaceLab leaves it, with pictures, history and optimizer."""
    folder.mkdir(exist_ok=True)
    data = {
        "iter": iteration, "options": options,
        "loss_history": [[0.5 / (i + 1), 0.25] for i in range(20)],
        "sample_for_preview": [[np.zeros((1, 8, 8, 3), np.float32)] * 1, [None]],
        "choosed_gpu_indexes": None,
    }  # fmt: skip
    (folder / f"{name}_{kind}_data.dat").write_bytes(pickle.dumps(data, protocol))
    for file, keys in files.items():
        (folder / f"{name}_{kind}_{file}.npy").write_bytes(pickle.dumps(keys, protocol))
    (folder / f"{name}_{kind}_merger_session.dat").write_bytes(b"\x80\x04cos\nsystem\n.")
    return folder
