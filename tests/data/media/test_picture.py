"""Single pictures: each format as it is, damage noticed, profiles and straight alpha kept."""

import io
import itertools
import os
import threading
import time
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from odfs_jax.data.media import picture, png
from odfs_jax.data.parallel import Budget
from odfs_jax.errors import BadFileError

SIDES = 120, 161


def _scene() -> np.ndarray:
    """uint8 RGB with edges and noise, whose code is longer than the damage that is done to it."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (8, 10, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, SIDES[::-1], interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


SCENE = _scene()


def encoded(kind: str, image: np.ndarray = SCENE, mode: str | None = None, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).convert(mode).save(content, kind, **options)
    return content.getvalue()


def read(tmp_path, content: bytes) -> picture.Picture:
    (tmp_path / "x").write_bytes(content)
    return picture.read(tmp_path / "x")


@pytest.mark.parametrize(
    "kind", ["PNG", "BMP", "TIFF", "TGA", "PPM", "WEBP", "GIF", "AVIF", "JPEG"]
)
def test_formats(tmp_path, kind):
    lossless = {"WEBP": {"lossless": True}}
    image = read(tmp_path, encoded(kind, **lossless.get(kind, {}))).image
    assert image.shape == SCENE.shape and image.dtype == np.uint8
    error = np.abs(image.astype(int) - SCENE).mean()
    assert error == 0 if kind not in ("GIF", "AVIF", "JPEG") else error < 12


def test_jpegs_are_what_opencv_decodes(tmp_path):
    for mode, quality in itertools.product(("RGB", "L", "CMYK"), (70, 95)):
        content = encoded("JPEG", mode=mode, quality=quality)
        expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert (read(tmp_path, content).image == expected[..., ::-1]).all()


def test_palettes_and_16_bits(tmp_path):
    few = Image.fromarray(SCENE).quantize(16)
    content = io.BytesIO()
    few.save(content, "PNG")
    assert (read(tmp_path, content.getvalue()).image == np.asarray(few.convert("RGB"))).all()
    deep = SCENE.astype(np.uint16) * 257 + 3
    for suffix in (".png", ".tif"):
        content = cv2.imencode(suffix, deep[..., ::-1])[1].tobytes()
        assert (read(tmp_path, content).image == deep).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_upright(tmp_path, kind):
    straight = read(tmp_path, encoded(kind, quality=90)).image
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[picture.ORIENTATION] = orientation
        turned = read(tmp_path, encoded(kind, exif=exif, quality=90)).image
        # EXIF 2.32, 4.6.4: where the 0th row and column of the stored picture are when upright.
        expected = [
            straight, straight[:, ::-1], straight[::-1, ::-1], straight[::-1],
            straight.swapaxes(0, 1), np.rot90(straight, -1), np.rot90(straight, 2).swapaxes(0, 1),
            np.rot90(straight),
        ][orientation - 1]  # fmt: skip
        assert (turned == expected).all(), orientation


def test_what_follows_a_jpeg_is_ignored(tmp_path):
    content = encoded("JPEG", quality=90)
    exact = read(tmp_path, content).image
    random = np.random.default_rng(0)
    trailers = [random.bytes(2000) for _ in range(100)]  # some hold the bytes of a scan's start
    trailers += [b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 9, content, b"\xff\xda", b"\xff\xd8\xff\xe1"]
    for trailer in trailers:
        assert (read(tmp_path, content + trailer).image == exact).all()


def test_restart_markers_progressive_scans_and_padding(tmp_path):
    plain = cv2.imencode(".jpg", SCENE[..., ::-1])[1].tobytes()
    options = [cv2.IMWRITE_JPEG_RST_INTERVAL, 2, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    for chosen in (options[:2], options[2:], options):
        content = cv2.imencode(".jpg", SCENE[..., ::-1], chosen)[1].tobytes()
        assert (read(tmp_path, content).image == read(tmp_path, plain).image).all()
    for padding in (b"\0" * 7, b"\xff" * 5, b"\xff"):
        padded = plain[:-2] + padding + plain[-2:]
        assert (read(tmp_path, padded).image == read(tmp_path, plain).image).all()


def damaged(content: bytes, start: int, patch: bytes) -> bytes:
    return content[:start] + patch + content[start + len(patch) :]


def test_damage_is_noticed(tmp_path):
    lzw, deflated = ({"compression": f"tiff_{name}"} for name in ("lzw", "adobe_deflate"))
    files = {
        "JPEG": encoded("JPEG", quality=95),
        "progressive": encoded("JPEG", quality=95, progressive=True),
        "CMYK": encoded("JPEG", mode="CMYK", quality=95),
        "LZW": encoded("TIFF", **lzw),
        "deflated": encoded("TIFF", **deflated),
        "PNG": encoded("PNG"),
    }
    for name, content in files.items():
        read(tmp_path, content)
        middle = len(content) // 2
        for patch in (bytes(3000), np.random.default_rng(1).bytes(3000)):
            with pytest.raises(BadFileError):
                read(tmp_path, damaged(content, middle, patch))
                pytest.fail(name)


@pytest.mark.parametrize(
    "kind", ["PNG", "BMP", "TIFF", "TGA", "PPM", "WEBP", "GIF", "AVIF", "JPEG"]
)
def test_half_a_picture_is_none(tmp_path, kind):
    content = encoded(kind)
    for share in (0.3, 0.9):
        with pytest.raises(BadFileError):
            read(tmp_path, content[: int(len(content) * share)])


def test_color_profiles_of_rgb_are_read(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        assert read(tmp_path, encoded(kind, icc_profile=profile)).profile == profile
    assert read(tmp_path, encoded("PNG")).profile is None
    gray = profile[:16] + b"GRAY" + profile[20:]  # does not fit what the pixels became
    assert read(tmp_path, encoded("PNG", icc_profile=gray)).profile is None
    again = png.with_profile(png.encode(SCENE), profile)
    assert read(tmp_path, again).profile == profile


def test_colors_below_transparency_are_not_multiplied(tmp_path):
    clear = np.dstack([SCENE, np.full(SIDES, 40, np.uint8)])
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert (read(tmp_path, encoded(kind, clear, **options)).image == SCENE).all(), kind
    content = io.BytesIO()
    deep = clear.astype(np.uint16) * 257
    tifffile.imwrite(content, deep, photometric="rgb", extrasamples=["unassalpha"])
    assert (read(tmp_path, content.getvalue()).image == deep[..., :3]).all()


def test_bombs_pipes_and_devices_are_refused_at_once(tmp_path):
    bomb = encoded("PNG")
    header = b"IHDR" + (30000).to_bytes(4, "big") * 2 + bomb[24:29]
    bomb = bomb[:12] + header + zlib.crc32(header).to_bytes(4, "big") + bomb[33:]
    with pytest.raises(BadFileError, match="30000x30000"):
        read(tmp_path, bomb)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(BadFileError, match="not a regular file"):
            picture.read(tmp_path / name)


def test_any_other_file_is_one_error(tmp_path):
    random = np.random.default_rng(0)
    for kind in ("PNG", "BMP", "TIFF", "TGA", "PPM", "WEBP", "GIF", "AVIF", "JPEG"):
        content = encoded(kind, SCENE[:40, :40])
        for _ in range(12):
            place = int(random.integers(0, min(len(content), 400)))
            try:
                read(tmp_path, damaged(content, place, random.bytes(int(random.integers(1, 9)))))
            except BadFileError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
    for content in (b"", b"\xff\xd8", b"II*\0", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        with pytest.raises(BadFileError):
            read(tmp_path, content)


def test_a_budget_bounds_what_is_held():
    budget, held, most = Budget(10), [], []

    def work(amount: int) -> None:
        with budget.hold(amount):
            held.append(min(amount, 10))
            most.append(sum(held))
            time.sleep(0.01)
            held.remove(min(amount, 10))

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (4, 99, 3, 7, 10, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 6 and max(most) <= 10
