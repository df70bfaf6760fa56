"""A part of a clip is read from the key frame before it: the same frames as in the whole."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import grid

from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.errors import UserError

COUNT, KEYS = 60, 12

CLIPS = {
    "h264.mp4": ("libx264", {"x264-params": f"keyint={KEYS}:bframes=3:b-pyramid=normal"}),
    "open.mkv": ("libx264", {"x264-params": f"keyint={KEYS}:bframes=3:open-gop=1"}),
    "refresh.ts": ("libx264", {"x264-params": f"keyint={KEYS}:intra-refresh=1"}),
    "hevc.mp4": ("libx265", {"x265-params": f"keyint={KEYS}:open-gop=1:log-level=error"}),
    "mpeg2.ts": ("mpeg2video", {"g": str(KEYS), "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"g": str(KEYS), "bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {"g": str(KEYS), "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "av1.mkv": ("libsvtav1", {"g": str(KEYS), "preset": "12", "svtav1-params": "log-level=0"}),
    "ffv1.mkv": ("ffv1", {"g": str(KEYS)}),
}


def write(path, codec, options, times):
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        video.codec_context.time_base = Fraction(1, 25)
        noise = np.random.default_rng(0).integers(0, 40, (COUNT, 64, 64, 3)).astype(np.uint8)
        for time, image in zip(times, grid(COUNT, 64, 64) // 2 + noise, strict=True):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = time, Fraction(1, 25)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
    return path


def frames_of(path, **selected):
    with open_frames(path, plates=True) as source:
        source.select(None, **selected)
        frames = list(source)
        return frames, source


@pytest.mark.parametrize("name", CLIPS)
def test_a_part_is_as_in_the_whole(tmp_path, name):
    codec, options = CLIPS[name]
    path = write(tmp_path / name, codec, options, range(COUNT))
    whole, source = frames_of(path)
    assert not source.bad
    with open_frames(path) as source:
        assert source.exact_count() == len(whole) == COUNT
    entered = 0
    for start, stop in ((1, 5), (KEYS, None), (3 * KEYS - 1, None), (4 * KEYS + 2, COUNT - 3)):
        part, source = frames_of(path, start=start, stop=stop)
        entered += bool(source._entry and source._entry.packet)
        assert [f.index for f in part] == list(range(start, stop or COUNT))
        for ours, theirs in zip(part, whole[start:stop], strict=True):
            assert (ours.index, ours.pts, ours.duration) == (
                theirs.index, theirs.pts, theirs.duration
            )  # fmt: skip
            np.testing.assert_array_equal(ours.image, theirs.image)
        assert not source.bad
    assert entered >= 2 or name == "mpeg4.avi"  # whose packets have no times


def test_where_a_frame_is_missing_the_part_is_refused(tmp_path):
    """In the whole clip all frames after it would have other numbers."""
    path = write(tmp_path / "a.mp4", *CLIPS["h264.mp4"], range(COUNT))
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][45]
        place, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    assert len(frames_of(path)[0]) == COUNT - 1
    with pytest.raises(UserError, match=r"frame 4\d cannot be decoded, .*; run without shard="):
        frames_of(path, start=40)
    with pytest.raises(UserError, match=r"frame 4\d cannot be decoded, .*; run without shard="):
        frames_of(path, start=0, stop=50)
    assert len(frames_of(path, start=0, stop=40)[0]) == 40
    assert len(frames_of(path, start=50)[0]) == COUNT - 50
