"""What conversion leaves alone is written as it was read: samples, bits, transparency."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import tifffile
from clips import MARKING, OUTPUT, copy, grid, make_clip, read, sound_packets, video_facts

from odfs_jax.data.media import yuv
from odfs_jax.data.media.frame_io import open_frames, open_writer
from odfs_jax.errors import UserError

FFV1 = dataclasses.replace(OUTPUT, codec="ffv1", crf=None, preset=None)
PICTURES = dataclasses.replace(OUTPUT, codec="x264", crf=None, preset=None)
FACE = np.s_[10:25, 21:40]  # odd on purpose: chroma samples are shared with its outside


def noise(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)


def with_face(source_path: Path, result: Path, output=FFV1) -> Path:
    """A copy whose every second frame has an inverted, weighted rectangle."""
    with (
        open_frames(source_path, plates=True) as source,
        open_writer(result, source, output, MARKING) as writer,
    ):
        for frame in source:
            if frame.index % 2:
                image, weights = frame.image.copy(), np.zeros(frame.image.shape[:2], np.uint8)
                image[FACE] = 255 - image[FACE]
                weights[FACE] = 255
                frame = dataclasses.replace(frame, image=image, weights=weights)
            writer.write(frame)
    return result


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as clip:
        return list(clip.decode(video=0))


@pytest.mark.parametrize(
    "layout",
    ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "gray", "gray10le", "bgr0"],
)
@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
def test_ffv1_keeps_every_sample_outside_the_face(tmp_path, layout, size):
    source = ffv1_clip(tmp_path / "in.mkv", layout, *size)
    result = with_face(source, tmp_path / "out.mkv")
    for index, (old, new) in enumerate(zip(decoded(source), decoded(result), strict=True)):
        assert new.format.name == old.format.name
        for a, b in zip(yuv.samples(old), yuv.samples(new), strict=True):
            changed = (a != b).any(axis=2)
            if not index % 2:
                assert not changed.any()
                continue
            down, right = -(-size[0] // a.shape[0]), -(-size[1] // a.shape[1])
            rows = slice(FACE[0].start // down, -(-FACE[0].stop // down))
            cols = slice(FACE[1].start // right, -(-FACE[1].stop // right))
            assert changed[rows, cols].mean() > 0.9
            changed[rows, cols] = False
            assert not changed.any()


def ffv1_clip(path: Path, layout: str, height: int, width: int) -> Path:
    """Noise in every plane: nothing in it survives a detour by 8-bit RGB."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, layout
        for _ in range(4):
            frame = av.VideoFrame(width, height, layout)
            depth = max(part.bits for part in frame.format.components)
            for plane in yuv.samples(frame):
                if depth == 8:
                    plane[:] = rng.integers(16, 236, plane.shape)
                else:
                    values = rng.integers(64, 940, plane.shape[:2], np.uint16)
                    plane[:] = values[..., None].view(np.uint8)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def outside(images: np.ndarray) -> np.ndarray:
    """The frames' pixels, those of the swapped faces blacked out."""
    images = images.copy()
    images[1::2, FACE[0], FACE[1]] = 0
    return images


@pytest.mark.parametrize("layout", ["yuv420p", "yuv420p10le"])
def test_a_turned_clip_keeps_its_samples(tmp_path, layout):
    source = make_clip(tmp_path / "in.mp4", noise(2), turn=90, pixel_format=layout)
    result = copy(source, tmp_path / "out.mkv", FFV1)
    for old, new in zip(decoded(source), decoded(result), strict=True):
        for a, b in zip(yuv.samples(old), yuv.samples(new), strict=True):
            np.testing.assert_array_equal(np.rot90(a), b)


def test_a_clip_whose_chroma_cannot_be_turned_is_still_upright(tmp_path):
    source = make_clip(tmp_path / "in.mp4", noise(1), turn=90, pixel_format="yuv444p")
    with av.open(str(source)) as clip:
        frame = next(clip.decode(video=0)).reformat(format="yuv422p")
    assert yuv.rotated(frame, np.rot90) is None
    assert read(copy(source, tmp_path / "out.mkv", FFV1))[1].shape == (1, 64, 48, 3)


def test_pngs_hold_the_pictures_of_the_clip(tmp_path):
    source = make_clip(tmp_path / "in.mp4", noise(4), pixel_format="yuv420p")
    result = with_face(source, tmp_path / "out", PICTURES)
    np.testing.assert_array_equal(outside(read(result)[1]), outside(read(source)[1]))


def test_pictures_as_ffv1_are_the_pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for index, image in enumerate(noise(4)):
        cv2.imwrite(str(folder / f"{index}.png"), image[..., ::-1])
    result = with_face(folder, tmp_path / "out.mkv")
    np.testing.assert_array_equal(outside(read(result)[1]), outside(noise(4)))
    assert video_format(result) == "bgr0"
    assert video_format(copy(folder, tmp_path / "out.mp4")) == "yuv420p"


def video_format(path: Path) -> str:
    return decoded(path)[0].format.name


def test_tiffs_keep_all_bits_of_pictures_and_of_clips(tmp_path):
    folder, tiff = tmp_path / "in", dataclasses.replace(PICTURES, pictures="tiff")
    folder.mkdir()
    deep = np.random.default_rng(0).integers(0, 65536, (4, 48, 64, 3), np.uint16)
    for index, image in enumerate(deep):
        cv2.imwrite(str(folder / f"{index}.png"), image[..., ::-1])
    result = with_face(folder, tmp_path / "out", tiff)
    files = sorted(result.iterdir())
    assert [file.name for file in files] == ["0.tif", "1.tif", "2.tif", "3.tif"]
    seen = np.stack([tifffile.imread(file) for file in files])
    np.testing.assert_array_equal(outside(seen), outside(deep))
    assert np.abs(seen[1][FACE].astype(int) - (65535 - deep[1][FACE].astype(int))).max() <= 129
    np.testing.assert_array_equal(read(result)[1][0], np.rint(deep[0] / 257).astype(np.uint8))

    clip = make_clip(tmp_path / "ten.mp4", grid(2), pixel_format="yuv420p10le")
    values = tifffile.imread(sorted(copy(clip, tmp_path / "ten", tiff).iterdir())[0])
    assert (values[7::16, 7::16] % 257).any()  # more than 8 bits
    assert np.abs(values[7::16, 7::16] / 257 - grid(2)[0, 7::16, 7::16]).max() < 1


def test_a_cut_out_face_laid_over_the_source_is_the_result(tmp_path):
    source = make_clip(tmp_path / "in.mp4", grid(4), pixel_format="yuv444p")
    with open_frames(source, plates=True) as frames:
        frame = list(frames)[1]
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 256, frame.image.shape[:2], np.uint8)
    face = rng.integers(0, 256, frame.image.shape).astype(float)
    share = weights[..., None] / 255
    merged = np.rint(frame.plate * (1 - share) + face * share).astype(np.uint8)
    frame = dataclasses.replace(frame, image=merged, weights=weights)
    folder = tmp_path / "out"
    alpha = dataclasses.replace(PICTURES, alpha=True, mask=True)
    with (
        open_frames(source) as frames,
        open_writer(folder, frames, alpha, MARKING) as writer,
    ):
        writer.write(frame)
        writer.write(dataclasses.replace(frame, index=2, image=frame.plate, weights=None))
    first, second = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted(folder.iterdir()))
    np.testing.assert_array_equal(first[..., 3], weights)
    assert not second.any()
    share = first[..., 3:] / 255
    again = frame.plate * (1 - share) + first[..., 2::-1] * share
    assert np.abs(again - merged).max() <= 0.51
    masks = [
        cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((tmp_path / "out_mask").iterdir())
    ]
    np.testing.assert_array_equal(masks[0], weights)
    assert masks[1].shape == weights.shape and not masks[1].any()


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("out.mkv", "ffv1", "bgra"),
        ("out.mov", "prores", "yuva444p12le"),
        ("tiff", "x264", ""),
    ],
)
def test_transparency_in_every_format_that_has_it(tmp_path, name, codec, layout):
    source = make_clip(tmp_path / "in.mp4", grid(4), pixel_format="yuv444p")
    output = dataclasses.replace(PICTURES, codec=codec, alpha=True, pictures="tiff")
    if codec == "ffv1":
        output = dataclasses.replace(output, pixel_format="bgra")
    result = with_face(source, tmp_path / name, output)
    if name == "tiff":
        image = tifffile.imread(sorted(result.iterdir())[1])
        assert image.dtype == np.uint16
    else:
        frame = decoded(result)[1]
        assert frame.format.name == layout
        image = frame.reformat(format="rgba64le").to_ndarray()
    shown = np.zeros(image.shape[:2], bool)
    shown[FACE] = True
    np.testing.assert_array_equal(image[..., 3] > 60000, shown)
    assert (image[~shown][:, 3] == 0).all()


def test_an_encoder_without_transparency_is_refused(tmp_path):
    source = make_clip(tmp_path / "in.mp4", grid(1))
    with pytest.raises(UserError, match="no pixel format for transparent 64x48"):
        copy(source, tmp_path / "out.mp4", dataclasses.replace(PICTURES, alpha=True))


@pytest.mark.parametrize(
    ("codec", "name", "changes", "known_as", "layout"),
    [
        ("x264", "out.mp4", {"crf": 20, "preset": "fast"}, "h264", "yuv420p10le"),
        ("x265", "out.mp4", {"crf": 20, "preset": "ultrafast"}, "hevc", "yuv420p10le"),
        ("x265", "out.mkv", {"preset": "ultrafast"}, "hevc", "yuv420p10le"),
        ("ffv1", "out.mkv", {"pixel_format": "bgr0"}, "ffv1", "bgr0"),
        ("prores", "out.mov", {}, "prores", "yuv422p10le"),
        ("prores", "out.mkv", {"preset": "4444"}, "prores", "yuv444p12le"),
    ],
)
def test_the_named_encoders(tmp_path, codec, name, changes, known_as, layout):
    source = make_clip(tmp_path / "in.mp4", grid(6), pixel_format="yuv420p10le")
    output = dataclasses.replace(PICTURES, codec=codec, **changes)
    result = copy(source, tmp_path / name, output)
    assert decoded(result)[0].format.name == layout
    with av.open(str(result)) as clip:
        context = clip.streams.video[0].codec_context
        assert context.name == known_as
        if known_as == "hevc" and name.endswith("mp4"):
            assert context.codec_tag == "hvc1"
    assert np.abs(read(result)[1].astype(int) - read(source)[1]).mean() < 4
    facts = video_facts(result)
    if layout != "bgr0":
        assert facts["tags"] == video_facts(source)["tags"]
    # Sound that starts before 0 moves everything in an MKV: no time in it is negative.
    shift = facts["times"][0]
    assert shift < Fraction(1, 40) and (not shift or name.endswith("mkv"))
    assert [time - shift for time in facts["times"]] == video_facts(source)["times"]
    before, after = sound_packets(source), sound_packets(result)
    assert [data for _, data in after] == [data for _, data in before]
    gaps = [abs(a - shift - b) for (a, _), (b, _) in zip(after, before, strict=True)]
    assert max(gaps) <= Fraction(1, 1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crf": 52}, r"output.crf=52: x264 takes 0 to 51"),
        ({"crf": -1}, "takes 0 to 51"),
        ({"codec": "ffv1", "crf": 10}, "output.crf=10: ffv1 has no CRF; leave it out"),
        ({"codec": "ffv1", "preset": "slow"}, "output.preset=slow: ffv1 has no such preset; leave"),
        ({"codec": "prores", "preset": "slow"}, "expected one of proxy, lt, standard, hq, 4444"),
        ({"pixel_format": "bgra"}, "output.pixel_format=bgra: x264 has: yuv420p"),
        ({"codec": "prores", "preset": "hq", "alpha": True}, "output.preset=hq is 4:2:2"),
    ],
)
def test_what_an_encoder_does_not_take_is_refused(tmp_path, changes, message):
    source = make_clip(tmp_path / "in.mp4", grid(1))
    with pytest.raises(UserError, match=message):
        copy(source, tmp_path / "out.mov", dataclasses.replace(PICTURES, **changes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


def test_an_unknown_kind_of_picture_is_refused(tmp_path):
    source = make_clip(tmp_path / "in.mp4", grid(1))
    with pytest.raises(UserError, match=r"output.pictures=gif: expected png or tiff"):
        copy(source, tmp_path / "out", dataclasses.replace(PICTURES, pictures="gif"))
