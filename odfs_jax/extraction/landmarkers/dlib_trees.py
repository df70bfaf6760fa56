"""dlib's 68-point shape predictor as arrays, read from its file without dlib.

dlib writes every number as a packed integer: a byte whose low half counts the bytes that follow,
little end first, its top bit the sign; a float is two of them, mantissa and exponent of two.
Source: dlib's documentation of `serialize` and of `shape_predictor`.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from odfs_jax.data import atomic, foreign
from odfs_jax.errors import BadFileError
from odfs_jax.faces.packaged_weights import package_file, verified
from odfs_jax.nets.detectors.regression_trees import Stages

T = TypeVar("T")

log = logging.getLogger(__name__)

# Of shape_predictor_68_face_landmarks.dat in face-recognition-models 0.3.0.
SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
CACHE = Path("~/.cache/odfs_jax")  # reading the file takes seconds, what was read a tenth of one
BYTES = (3, 1, 2, 0, 4, 5, 6, 7, 8)  # that may follow in a packed integer, the usual ones first
NUMBER = b"(?:" + b"|".join(b"[\\x%02x\\x%02x]%s" % (n, 128 | n, b"." * n) for n in BYTES) + b")"


def dlib68_path() -> Path:
    """dlib's 68-point shape predictor, inside `face-recognition-models`."""
    return package_file("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat")


def read_trees(folder: Path = CACHE) -> tuple[np.ndarray, Stages]:
    """(mean shape float32 [68,2], the stages); kept as an .npz in `folder` for the next time.

    Raises UserError when dlib's file is missing or is not the one whose digest is above.
    """
    path = folder.expanduser() / f"dlib68-{SHA256[:12]}.npz"
    if path.exists():
        try:
            return read_kept(path)
        except BadFileError as error:
            log.warning("%s; read from dlib's file again", error)
    mean, stages = parse(verified(dlib68_path(), SHA256))
    try:
        with atomic.replacing(path) as temporary:
            np.savez(temporary, mean=mean, **stages._asdict())
    except OSError as error:
        log.warning("%s: %s; dlib's file has to be read each time", path, error.strerror)
    return mean, stages


def read_kept(path: Path) -> tuple[np.ndarray, Stages]:
    """(mean shape, the stages) in the .npz that `read_trees` kept. Raises BadFileError."""
    arrays = foreign.read_npz(path)
    try:
        return _checked(arrays)
    except ValueError as error:
        raise BadFileError(path, f"not the trees that were kept ({error})") from error


def _checked(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, Stages]:
    if set(arrays) != {"mean", *Stages._fields}:
        raise ValueError("other arrays than the trees'")
    mean, stages = arrays["mean"], Stages(*(arrays[name] for name in Stages._fields))
    count, pixels = stages.anchors.shape if stages.anchors.ndim == 2 else (0, 0)
    splits, trees = stages.thresholds.shape[1:] if stages.thresholds.ndim == 3 else (0, 0)
    shapes = {
        "mean": (68, 2),
        "anchors": (count, pixels),
        "offsets": (count, pixels, 2),
        "first": (count, splits * trees),
        "second": (count, splits * trees),
        "thresholds": (count, splits, trees),
        "leaves": (count, (splits + 1) * trees, 136),
    }
    largest = {"anchors": 68, "first": pixels, "second": pixels}
    for name, array in arrays.items():
        kind = np.int32 if name in largest else np.float32
        if array.dtype != kind or array.shape != shapes[name] or not array.size:
            raise ValueError(f"{name} is {array.dtype} {array.shape}")
        if name in largest and not (array.min() >= 0 and array.max() < largest[name]):
            raise ValueError(f"{name} is out of range")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    return mean, stages


def parse(content: bytes) -> tuple[np.ndarray, Stages]:
    """(mean shape float32 [P,2], the stages) of a shape predictor's file.

    All trees are as deep, as dlib trains them. Raises ValueError for another version.
    """
    reader = _Reader(content)
    if reader.integer() != 1:
        raise ValueError("not version 1 of dlib's shape predictor")
    mean = [reader.floating() for _ in range(reader.matrix_size())]
    splits, leaves = [], []  # of every tree of every stage; of leaves, where their floats begin
    stages = reader.integer()
    for _ in range(stages):
        for _ in range(reader.integer()):
            splits.append(reader.items(reader.split))
            leaves.append(reader.items(reader.skip_matrix))
    anchors = reader.items(lambda: reader.items(reader.integer))
    offsets = reader.items(lambda: reader.items(reader.pair))
    nodes = np.array(splits).reshape(stages, -1, *np.shape(splits)[1:]).transpose(3, 0, 2, 1)
    values = reader.floats_at(np.array(leaves).ravel(), len(mean))
    values = values.reshape(stages, -1, len(leaves[0]), len(mean)).swapaxes(1, 2)
    return np.array(mean, np.float32).reshape(-1, 2), Stages(
        anchors=np.array(anchors, np.int32),
        offsets=np.array(offsets, np.float32),
        first=nodes[0].reshape(stages, -1).astype(np.int32),
        second=nodes[1].reshape(stages, -1).astype(np.int32),
        thresholds=nodes[2].astype(np.float32),
        leaves=np.ascontiguousarray(values).reshape(stages, -1, len(mean)),
    )


class _Reader:
    """Reads packed numbers one after the other, and many floats at once."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def integer(self) -> int:
        head = self._content[self._at]
        end = self._at + 1 + (head & 15)
        value = int.from_bytes(self._content[self._at + 1 : end], "little")
        self._at = end
        return -value if head & 128 else value

    def floating(self) -> float:
        return self.integer() * 2.0 ** self.integer()

    def pair(self) -> tuple[float, float]:
        return self.floating(), self.floating()

    def split(self) -> tuple[int, int, float]:
        return self.integer(), self.integer(), self.floating()

    def items(self, read: Callable[[], T]) -> list[T]:
        return [read() for _ in range(self.integer())]

    def matrix_size(self) -> int:
        """How many numbers follow: dlib writes rows and columns, negated."""
        return self.integer() * self.integer()

    def skip_matrix(self) -> int:
        """Where the floats of the matrix begin that is passed over."""
        numbers = 2 * self.matrix_size()
        start = self._at
        found = re.compile(b"(?>%s){%d}" % (NUMBER, numbers), re.DOTALL).match(self._content, start)
        if found is None:
            raise ValueError(f"no matrix of floats at byte {start}")
        self._at = found.end()
        return start

    def floats_at(self, starts: np.ndarray, count: int) -> np.ndarray:
        """float32 [n, count]: the floats that begin at each of `starts` [n]."""
        content = self._content + bytes(8)
        heads = np.frombuffer(content, np.uint8)
        eights = np.ndarray(len(self._content), "<u8", content, strides=(1,))  # from every byte on
        at, values = starts.astype(np.int64), np.empty((len(starts), count), np.float32)

        def integers() -> np.ndarray:
            nonlocal at
            head = heads[at]
            size = head & 15
            value = (eights[at + 1] & _MASKS[size]).astype(np.int64)
            at = at + 1 + size
            return np.where(head & 128, -value, value)

        for column in range(count):
            mantissa, exponent = integers(), integers()
            values[:, column] = np.ldexp(mantissa.astype(np.float64), exponent.astype(np.int32))
        return values


_MASKS = np.array([256**size - 1 for size in range(9)], np.uint64)
