"""Every reader of files on thousands of damaged ones: what it refuses, it refuses in one line.

A reader gets a good file, then changed copies of it: bytes turned, cut out, doubled, replaced by
noise; in texts also values of other types, sizes and ranges. The seeds are fixed. A reader may
return or raise UserError; it may not raise anything else, compute for 10 s, or take 1 GB of memory.
"""

import dataclasses
import functools
import io
import json
import pickle
import re
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import tifffile
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from odfs_jax import saved_model
from odfs_jax.config import ModelConfig, compose
from odfs_jax.conversion.shots import read_shots
from odfs_jax.curation import rename
from odfs_jax.curation.faceset import pack, unpack
from odfs_jax.data import foreign
from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.data.media import xmp
from odfs_jax.data.media.frame_io import FrameReader, open_frames
from odfs_jax.data.media.picture_folder import read_picture
from odfs_jax.errors import UserError
from odfs_jax.extraction.detectors.from_file import read_faces
from odfs_jax.extraction.journal import JOURNAL, Done, Dropped, ExtractionJournal
from odfs_jax.extraction.landmarkers.dlib_trees import read_kept
from odfs_jax.interop import facesets, pickles
from odfs_jax.interop.models import find_model, settings_of
from odfs_jax.nets import build_net
from odfs_jax.provenance.verify import verify
from odfs_jax.studio.face_index import read_index
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.queue import read_job as read_queued
from odfs_jax.studio.workspace import StudioWorkspace
from odfs_jax.swap.jobs import read_list
from odfs_jax.swap.swap import Record
from odfs_jax.training import control, metrics
from odfs_jax.training.checkpoint import read_history

INPUTS, SLOW_INPUTS = 40, 20_000  # of a reader in the default suite; of all in the slow one
LONGEST, LARGEST = 10.0, 1 << 30  # CPU seconds an input, bytes of memory for a reader's inputs
PATIENCE = 120.0  # seconds an input, on a machine that does other work
VALUES = (
    "1e999", "-1", "0", "9" * 401, "1e300", "null", "true", '"x"', "[]", "{}", "NaN", "-Infinity",
    "1.5", '"\\u001b[31m"', '"${oc.env:HOME}"', "[" * 200, '{"a": {"a": 1}}', "*a", "&a [*a]",
    "!!timestamp 2000-01-01",
)  # fmt: skip
VALUE = re.compile(rb'"(\\.|[^"\\])*"|-?\d+(\.\d+)?([eE][-+]?\d+)?|null|true|false')


def change_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """One of: a few bytes turned, a part cut out, doubled, made noise or zero, the end cut off."""
    changed = bytearray(content)
    start = int(rng.integers(0, len(content)))
    length = int(rng.integers(1, 1 + max(1, min(64, len(content) - start))))
    part = slice(start, start + length)
    match rng.integers(0, 7):
        case 0:
            for place in rng.integers(0, len(content), rng.integers(1, 9)):
                changed[place] ^= 1 << int(rng.integers(0, 8))
        case 1:
            del changed[part]
        case 2:
            changed[part] = changed[part] * 2
        case 3:
            changed[part] = rng.integers(0, 256, length, np.uint8).tobytes()
        case 4:
            changed[part] = bytes(length)
        case 5:
            changed[part] = b"\xff" * length
        case 6:
            del changed[start:]
    return bytes(changed)


def change_text(content: bytes, rng: np.random.Generator) -> bytes:
    """A value of another kind in place of one, or else a change of bytes."""
    values = list(VALUE.finditer(content))
    if not values or rng.integers(0, 4) == 0:
        return change_bytes(content, rng)
    found = values[rng.integers(0, len(values))]
    value = VALUES[rng.integers(0, len(VALUES))].encode()
    return content[: found.start()] + value + content[found.end() :]


@dataclasses.dataclass(frozen=True)
class Reader:
    """`read(path)` reads a file that has the `name`, and whose sound content `good` returns."""

    name: str
    good: Callable[[Path], bytes]
    read: Callable[[Path], object]
    change: Callable[[bytes, np.random.Generator], bytes] = change_text


def lines(*values) -> Callable[[Path], bytes]:
    return lambda _: b"".join(json.dumps(value).encode() + b"\n" for value in values)


def file_of(write: Callable[[Path], object], name: str) -> Callable[[Path], bytes]:
    """The content of a file that `write` makes at a path of this name."""

    def content(folder: Path) -> bytes:
        write(folder / name)
        return (folder / name).read_bytes()

    return content


def an_aligned_png(folder: Path) -> bytes:
    (source,) = folder.glob("*_0.png")
    return source.read_bytes()


def a_journal(folder: Path) -> bytes:
    journal = ExtractionJournal(folder)
    journal.start({"size": 64, "source": {"file": "a.mp4"}})
    left_out = Dropped("too small", (1.0, 2.0, 3.0, 4.5), 0.9)
    for number in range(3):
        journal.add(Done("a.mp4", number, number * 512, 1, (left_out,) * number))
    return (folder / JOURNAL).read_bytes()


def a_picture(suffix: str) -> Callable[[Path], bytes]:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    return lambda _: cv2.imencode(suffix, cv2.GaussianBlur(image, (5, 5), 0))[1].tobytes()


def saved_as(kind: str) -> Callable[[Path], bytes]:
    def content(_: Path) -> bytes:
        buffer = io.BytesIO()
        image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(cv2.GaussianBlur(image, (5, 5), 0)).save(buffer, kind)
        return buffer.getvalue()

    return content


def a_tiff(_: Path) -> bytes:
    buffer = io.BytesIO()
    picture = np.random.default_rng(0).integers(0, 65536, (24, 32, 3), np.uint16)
    tifffile.imwrite(buffer, picture, photometric="rgb", compression="zlib")
    return buffer.getvalue()


def a_clip(codec: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for number in range(8):
                image = np.full((32, 32, 3), 30 * number, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
            out.mux(stream.encode(None))

    return write


def an_npz(**arrays: np.ndarray) -> Callable[[Path], bytes]:
    def content(_: Path) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    return content


def trees(_: Path) -> bytes:
    rng = np.random.default_rng(0)
    return an_npz(
        mean=rng.random((68, 2), np.float32),
        anchors=rng.integers(0, 68, (2, 5), np.int32),
        offsets=rng.random((2, 5, 2), np.float32),
        first=rng.integers(0, 5, (2, 3 * 4), np.int32),
        second=rng.integers(0, 5, (2, 3 * 4), np.int32),
        thresholds=rng.random((2, 3, 4), np.float32),
        leaves=rng.random((2, 4 * 4, 136), np.float32),
    )(_)


def a_pickle(_: Path) -> bytes:
    options = {"archi": "df-ud", "resolution": np.int64(64), "dims": [16, 0.5, None, True]}
    value = {"options": options, "a/weight:0": np.ones((3, 2), np.float32), "b": (1, (2,))}
    return pickle.dumps(value, 4)


def a_dfl_face(_: Path) -> bytes:
    points = [[8.0 + 15 * x, 8.0 + 15 * y] for x, y in np.random.default_rng(0).random((68, 2))]
    mask = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].reshape(-1)
    areas = {"polys": [{"type": 1, "pts": np.ones((3, 2), np.float32)}]}
    data = {"landmarks": points, "source_filename": "1.png", "image_to_face_mat": np.eye(2, 3)}
    data |= {"seg_ie_polys": areas, "xseg_mask": mask}
    payload = pickle.dumps(data, 4)
    content = cv2.imencode(".jpg", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
    return content[:2] + b"\xff\xef" + struct.pack(">H", len(payload) + 2) + payload + content[2:]


def a_dfl_pak(folder: Path) -> bytes:
    face, index = a_dfl_face(folder), pickle.dumps([{"filename": "a.jpg", "person_name": None}], 4)
    head = struct.pack("<QQ", 1, len(index)) + index
    return head + struct.pack("<QQ", 0, len(head) + 16 + len(face)) + face


def a_dfl_model(_: Path) -> bytes:
    options = {"archi": "df-ud", "resolution": np.int64(64), "face_type": "wf", "ae_dims": 32,
               "e_dims": 16, "d_dims": 16, "d_mask_dims": 16}  # fmt: skip
    return pickle.dumps({"iter": 7, "options": options, "loss_history": [[0.5, 0.25]]}, 4)


def a_zip(folder: Path) -> bytes:
    pack(sorted(folder.glob("*_0.png")), folder / "good.zip")
    return (folder / "good.zip").read_bytes()


def a_model(_: Path) -> bytes:
    config = compose("train", ["model.width=0.01"])
    return json.dumps(OmegaConf.to_container(config, resolve=True)).encode()


@functools.cache
def merge_settings() -> DictConfig:
    return compose("convert").merge


def read_model(path: Path) -> None:
    """As conversion does, without the arrays."""
    build_net(saved_model.read_config(path.parents[1])["model"])


def unpack_all(path: Path) -> None:
    target = path.with_name("unpacked")
    unpack(path, target)
    for face in target.iterdir():
        face.unlink()
    target.rmdir()


def read_clip(path: Path) -> None:
    with open_frames(path, plates=True) as source:
        for _ in source:
            pass


def read_by_number(path: Path) -> None:
    reader = FrameReader(path)
    for number in (0, reader.count - 1, 3):
        reader.read(number)


def read_dfl_face(path: Path) -> None:
    target = path.with_name("imported")
    facesets.import_faces(path.parent, target, None)
    for face in target.iterdir():
        face.unlink()
    target.rmdir()


NOTES = {"version": 1, "step": "sorted", "token": "ab12",
         "moves": [{"old": "a.png", "new": "00000.png", "trashed": False}] * 3}  # fmt: skip
BOXES = {"version": 1, "frames": {"a.png": [{"box": [1, 2, 30.5, 40], "score": 0.5}]}}
SWAPS = b"- {src: a.mov, dst: b.mov, out: c.mp4, hours: 2.5, train: [seed=1], train.ema: 0.99}\n"
QUEUED = b"command: sort\nchoices: {side: src, by: blur, keep: 90}\n"
SHOTS = b"- from: 0\n  mode: seamless\n  erode: 10\n- from: 30\n  blur: 5.5\n  keep: [eyes]\n"
LOSSES = [{"step": n, "losses": {"src_face": 0.5, "dst_face": None}, "rate": 1.5} for n in range(3)]
STATUS = {"state": "training", "step": 5, "target": 10, "steps_per_second": 0.5, "memory": 7,
          "memory_limit": 9, "written": 1e9, "device": "cpu", "batch_size": 4}  # fmt: skip
HISTORY = {"rows": [[10, {"a": 0.5}], [20, {"a": 0.25}]], "count": 3, "sums": {"a": 0.75}}
READERS = {
    "aligned_png": Reader("a.png", an_aligned_png, read_image_and_face),
    "face_data": Reader("a.png", an_aligned_png, read_face),
    "extraction": Reader(JOURNAL, a_journal, lambda p: ExtractionJournal.read(p.parent)),
    "sort": Reader(rename.JOURNAL, lines(NOTES), lambda p: rename.is_interrupted(p.parent)),
    "boxes": Reader("boxes.json", lines(BOXES), read_faces),
    "shots": Reader("dst.shots.yaml", lambda _: SHOTS,
                    lambda p: read_shots(p, merge_settings())),
    "model": Reader("config/metadata", a_model, read_model),
    "history": Reader("history/metadata", lines(HISTORY), lambda p: read_history(p.parents[1])),
    "losses": Reader(metrics.LOSSES, lines(*LOSSES), lambda p: metrics.read_losses(p.parent)),
    "status": Reader("control/status.json", lines(STATUS),
                     lambda p: control.read_status(p.parents[1])),
    "poses": Reader("poses_src.json", lines({"a.png": ["17", [1.0, 2.0, 0.9, 4]]}),
                    functools.partial(read_index, width=4)),
    "jobs": Reader("studio/jobs/sort.json", lines({"pid": 1, "created": 1.5}),
                   lambda p: Jobs(StudioWorkspace(p.parents[2])).find("sort")),
    "swap": Reader("swap.json", lines({"plan": {"of": "a", "seconds": 0.5}}), Record),
    "swap_jobs": Reader("jobs.yaml", lambda _: SWAPS, read_list),
    "queue_job": Reader("000001-sort-00000001.yaml", lambda _: QUEUED, read_queued),
    "weights": Reader("a.npz", an_npz(a=np.ones((3, 2)), b=np.arange(4)),
                      foreign.read_npz, change_bytes),
    "trees": Reader("trees.npz", trees, read_kept, change_bytes),
    "dfl_face": Reader("a.jpg", a_dfl_face, read_dfl_face, change_bytes),
    "dfl_pak": Reader("faceset.pak", a_dfl_pak, read_dfl_face, change_bytes),
    "dfl_model": Reader("a_SAEHD_data.dat", a_dfl_model,
                        lambda p: settings_of(find_model(p.parent, None)), change_bytes),
    "pickle": Reader("a.npy", a_pickle, lambda p: pickles.read(p, 1 << 20), change_bytes),
    "zip": Reader("faces.zip", a_zip, unpack_all, change_bytes),
    "png": Reader("a.png", a_picture(".png"), read_picture, change_bytes),
    "jpeg": Reader("a.jpg", a_picture(".jpg"), read_picture, change_bytes),
    "webp": Reader("a.webp", a_picture(".webp"), read_picture, change_bytes),
    "bmp": Reader("a.bmp", a_picture(".bmp"), read_picture, change_bytes),
    "tiff": Reader("a.tif", a_tiff, read_picture, change_bytes),
    **{kind: Reader(f"a.{kind.lower()}", saved_as(kind), read_picture, change_bytes)
       for kind in ("GIF", "TGA", "AVIF", "PPM", "JPEG2000")},
    "marks": Reader("a.tif", a_tiff, xmp.read, change_bytes),
    "mp4": Reader("a.mp4", file_of(a_clip("libx264"), "good.mp4"), read_clip, change_bytes),
    "mkv": Reader("a.mkv", file_of(a_clip("libx264"), "good.mkv"), read_clip, change_bytes),
    "webm": Reader("a.webm", file_of(a_clip("libvpx"), "good.webm"), read_clip, change_bytes),
    "ts": Reader("a.ts", file_of(a_clip("mpeg2video"), "good.ts"), read_clip, change_bytes),
    "avi": Reader("a.avi", file_of(a_clip("mpeg4"), "good.avi"), read_clip, change_bytes),
    "mxf": Reader("a.mxf", file_of(a_clip("mpeg2video"), "good.mxf"), read_clip, change_bytes),
    "seek_ts": Reader("a.ts", file_of(a_clip("libx264"), "good.ts"), read_by_number, change_bytes),
    "seek": Reader("a.mp4", file_of(a_clip("libx264"), "good.mp4"), read_by_number, change_bytes),
    "signature": Reader("a.mp4", file_of(a_clip("libx264"), "good.mp4"), verify, change_bytes),
}  # fmt: skip
COSTLY = {"webm": 20}  # fewer inputs in the default suite, and ten times as many in the slow one


@pytest.fixture
def good_file(tmp_path, write_faceset) -> Callable[[Reader], tuple[Path, bytes]]:
    """(where the reader's file is to lie, the content of a sound one), which it reads."""

    def make(reader: Reader) -> tuple[Path, bytes]:
        (tmp_path / "good").mkdir()
        write_faceset(tmp_path / "good", 1, size=32)
        content = reader.good(tmp_path / "good")
        path = tmp_path / "fuzzed" / reader.name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        reader.read(path)
        return path, content

    return make


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(reader: Reader, path: Path, content: bytes, seeds: Iterator[int]) -> int:
    """How many of the inputs were refused."""
    refused, before = 0, memory()
    for seed in seeds:
        path.write_bytes(reader.change(content, np.random.default_rng(seed)))
        start, computed = time.monotonic(), time.process_time()
        try:
            reader.read(path)
        except UserError as error:
            refused += 1
            assert str(error).isprintable(), (seed, str(error))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert time.process_time() - computed < LONGEST, seed
        assert time.monotonic() - start < PATIENCE, seed
    assert memory() - before < LARGEST
    return refused


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(good_file, name):
    path, content = good_file(READERS[name])
    fuzz(READERS[name], path, content, range(COSTLY.get(name, INPUTS)))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_thousands_of_damaged_files(good_file, name):
    path, content = good_file(READERS[name])
    count = COSTLY.get(name, 0) * 10 or SLOW_INPUTS // (len(READERS) - len(COSTLY))
    refused = fuzz(READERS[name], path, content, range(1000, 1000 + count))
    assert refused or name in ("losses", "status", "poses", "jobs", "marks", "signature")


def test_the_settings_of_a_model_are_all_checked():
    """A field that is added to `ModelConfig` is one that a stranger's checkpoint brings."""
    known = {"name", "net", "face_type", "resolution", "width", "args", *saved_model.MODEL_RANGES}
    assert {f.name for f in dataclasses.fields(ModelConfig)} == known | {"masked_hist_match"}
