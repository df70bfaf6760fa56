"""PNG chunks, against OpenCV's and Pillow's idea of the format."""

import io
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from odfs_jax.data.media import png

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
CONTENT = cv2.imencode(".png", IMAGE)[1].tobytes()
latin = st.text(st.characters(max_codepoint=255, exclude_characters="\0"), max_size=300)


@given(latin)
def test_text_round_trip_and_untouched_pixels(text):
    content = png.with_text(CONTENT, "key", text)
    assert png.read_text(content, "key") == text
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(content, np.uint8), 1), IMAGE)


def test_pillow_reads_the_text():
    with Image.open(io.BytesIO(png.with_text(CONTENT, "key", "a word"))) as image:
        image.load()
        assert image.text == {"key": "a word"} and image.size == (13, 9)


def test_setting_again_replaces_and_other_keys_stay():
    content = png.with_text(png.with_text(CONTENT, "one", "1"), "two", "2")
    content = png.with_text(content, "one", "3")
    assert (png.read_text(content, "one"), png.read_text(content, "two")) == ("3", "2")
    assert [kind for kind, _ in png.chunks(content)].count(b"tEXt") == 2
    assert png.read_text(content, "on") is None and png.read_text(CONTENT, "one") is None


def test_size():
    assert png.image_size(CONTENT) == (13, 9)


@pytest.mark.parametrize("content", [b"", b"GIF89a", png.SIGNATURE, CONTENT[:-1], CONTENT[:40]])
def test_what_is_not_whole_is_refused(content):
    with pytest.raises(ValueError, match="PNG"):
        png.chunks(content)


def test_a_wrong_checksum_is_refused():
    damaged = bytearray(CONTENT)
    damaged[50] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        png.chunks(bytes(damaged))


def test_a_text_of_megabytes_is_refused():
    content = png.with_text(CONTENT, "key", "x" * (png.MAX_TEXT_BYTES + 1))
    with pytest.raises(ValueError, match="too large"):
        png.read_text(content, "key")


def chunked(kind: bytes, data: bytes) -> bytes:
    return png.with_chunk(CONTENT, kind, data)


def test_texts_that_an_editor_saved_again():
    for compressed in (False, True):
        info = PngInfo()
        info.add_itxt("odfs", "a word", zip=compressed)
        info.add_text("key", "another", zip=compressed)
        saved = io.BytesIO()
        Image.open(io.BytesIO(CONTENT)).save(saved, "PNG", pnginfo=info)
        content = saved.getvalue()
        assert png.read_text(content, "odfs") == "a word"
        assert png.read_text(content, "key") == "another"
        again = png.with_text(content, "odfs", "changed")  # replaces it whatever its kind
        assert png.read_text(again, "odfs") == "changed" and again.count(b"odfs") == 1


def test_compressed_texts_from_hostile_programs():
    bomb = zlib.compress(bytes(png.MAX_TEXT_BYTES + 1))
    for data in (b"", b"\0", b"\1x", b"\0x", b"\0" + bomb, b"\0" + zlib.compress(b"text")[:-3]):
        with pytest.raises(ValueError):
            png.read_text(chunked(b"zTXt", b"odfs\0" + data), "odfs")
    for data in (
        b"",
        b"\1",
        b"\0\0",
        b"\1\0\0\0" + bomb,
        b"\0\0\0\0\xff",
        b"\1\1\0\0x",
        b"\7\0\0\0",
    ):
        with pytest.raises(ValueError):
            png.read_text(chunked(b"iTXt", b"odfs\0" + data), "odfs")


def test_bytes_after_the_end_are_dropped_on_rewriting():
    assert png.with_text(CONTENT + b"tail", "key", "x") == png.with_text(CONTENT, "key", "x")
