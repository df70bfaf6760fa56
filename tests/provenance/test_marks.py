"""Every writer's marks: there, valid, broken by one flipped byte, and nothing without the call."""

import dataclasses
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from odfs_jax.config import OutputConfig, ProvenanceConfig
from odfs_jax.data.media import xmp
from odfs_jax.data.media.frame_io import open_frames, open_writer
from odfs_jax.data.media.marking import COMMENT, XMP, Unmarked
from odfs_jax.errors import UserError
from odfs_jax.provenance import keys
from odfs_jax.provenance.signing import SignedMarking, make_marking
from odfs_jax.provenance.verify import ALTERED, UNSIGNED, WHOLE, verify

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify_provenance.py"
OUTPUT = OutputConfig(codec="x264", preset="ultrafast", fps=25)
# Every writer: (name of the result, what differs from OUTPUT).
WRITERS = {
    "x264.mp4": {},
    "x264.mov": {},
    "x264.m4v": {},
    "x264.mkv": {},
    "x265.mp4": {"codec": "x265"},
    "x265.mkv": {"codec": "x265"},
    "ffv1.mkv": {"codec": "ffv1", "preset": None},
    "ffv1.avi": {"codec": "ffv1", "preset": None},
    "prores.mov": {"codec": "prores", "preset": None},
    "vp9.webm": {"codec": "libvpx-vp9", "preset": None},
    "pngs": {},
    "tiffs": {"pictures": "tiff"},
}
EMBEDDED = (".mp4", ".mov", ".m4v")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a folder of three pictures, `in`."""
    folder = tmp_path_factory.mktemp("provenance")
    (folder / "in").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / "in" / f"{index}.png"), image)
    return folder


def write(source_path: Path, result: Path, mark=None, **changes) -> Path:
    output = dataclasses.replace(OUTPUT, **changes)
    mark = mark or SignedMarking(ProvenanceConfig(), source_path)
    with (
        open_frames(source_path, plates=True) as source,
        open_writer(result, source, output, mark) as writer,
    ):
        for frame in source:
            writer.write(frame)
    return result


@pytest.fixture(scope="module")
def results(folder) -> dict[str, Path]:
    return {
        name: write(folder / "in", folder / name, **changes) for name, changes in WRITERS.items()
    }


@pytest.fixture
def copied(results, tmp_path):
    """copied(name): a result, and what lies beside it, in a folder of its own."""

    def copy(name: str) -> Path:
        for path in (results[name], results[name].with_name(f"{name}.c2pa")):
            if path.is_dir():
                shutil.copytree(path, tmp_path / path.name)
            elif path.is_file():
                shutil.copy(path, tmp_path / path.name)
        return tmp_path / name

    return copy


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_marks_and_signs(results, name):
    verdict = verify(results[name])
    assert verdict.code == WHOLE
    assert verdict.signature == "Trusted" and verdict.says_edited and verdict.comment
    assert verdict.xmp == (name.endswith(EMBEDDED) or name in ("pngs", "tiffs"))
    assert verdict.inputs == ["0.png"]
    sidecar = results[name].with_name(f"{name}.c2pa")
    assert sidecar.exists() == name.endswith((".mkv", ".webm"))


@pytest.mark.parametrize("name", [name for name in WRITERS if "." in name])
def test_a_flipped_byte_in_a_clip_is_detected(copied, name):
    path = copied(name)
    content = bytearray(path.read_bytes())
    for position in picture_bytes(path):
        content[position] ^= 1
        path.write_bytes(content)
        assert verify(path).code == ALTERED
        content[position] ^= 1
    path.write_bytes(content)
    assert verify(path).code == WHOLE


def picture_bytes(path: Path) -> list[int]:
    """The first, middle and last byte of a packet, by where it stands in the file."""
    with av.open(str(path)) as clip:
        packets = [packet for packet in clip.demux(video=0) if packet.size]
    packet = packets[len(packets) // 2]
    start = path.read_bytes().index(bytes(packet))
    return [start, start + packet.size // 2, start + packet.size - 1]


@pytest.mark.parametrize("name", ["pngs", "tiffs"])
def test_a_flipped_byte_in_a_picture_is_detected(copied, name):
    folder = copied(name)
    picture = next(iter(sorted(folder.glob("1.*"))))
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 1
    picture.write_bytes(content)
    assert verify(folder).problems == [f"{picture.name}: altered after it was signed"]
    assert verify(picture).code == ALTERED
    others = [path for path in folder.iterdir() if path.suffix == picture.suffix]
    assert {verify(path).code for path in others if path != picture} == {WHOLE}


def test_what_the_signature_of_a_clip_covers(copied):
    """What docs/provenance.md says: all boxes but `ftyp`, `free` and `skip`."""
    path = copied("x264.mp4")
    content = path.read_bytes()
    for kind, code in ((b"free", WHOLE), (b"skip", WHOLE), (b"uuid", ALTERED), (b"mdat", ALTERED)):
        path.write_bytes(content + struct.pack(">I4s", 24, kind) + bytes(16))
        assert verify(path).code == code
    path.write_bytes(content[:-20])
    assert verify(path).code == ALTERED


def test_a_broken_file_that_was_never_signed_is_unsigned(folder, tmp_path):
    whole = write(folder / "in", tmp_path / "plain.mp4", Unmarked()).read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], bytes(4) + whole[4:]):
        (tmp_path / "broken.mp4").write_bytes(content)
        assert verify(tmp_path / "broken.mp4").code == UNSIGNED


def test_damage_to_marks_ends_in_a_verdict(copied):
    random = np.random.default_rng(0)
    for name in ("x264.mp4", "tiffs/0.tif", "pngs/0.png"):
        path = copied(name.split("/")[0])
        path = path / "0.tif" if name.endswith("tif") else path / "0.png" if "/" in name else path
        content = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(content)
            for place in random.integers(0, len(content), 4):
                damaged[place] = random.integers(0, 256)
            path.write_bytes(damaged)
            assert verify(path).code in (WHOLE, ALTERED, UNSIGNED) and verify(path).lines()


def test_pictures_gone_or_added_and_a_changed_list_are_detected(copied):
    folder = copied("pngs")
    (folder / "2.png").rename(folder / "3.png")
    assert verify(folder).problems == ["3.png: not in the signed list", "2.png: missing"]
    (folder / "3.png").rename(folder / "2.png")
    listed = folder / "provenance.json"
    listing = json.loads(listed.read_text())
    listing["sha256"]["0.png"] = listing["sha256"]["1.png"]
    listed.write_text(json.dumps(listing))
    assert verify(folder).code == ALTERED and verify(folder).signature == "Invalid"


@pytest.mark.parametrize("name", ["x264.mp4", "ffv1.mkv", "pngs", "tiffs"])
def test_without_the_call_there_is_no_mark(folder, tmp_path, name):
    """What the other tests find is the marking's doing, not the writer's."""
    verdict = verify(write(folder / "in", tmp_path / name, Unmarked(), **WRITERS[name]))
    assert verdict.code == UNSIGNED
    assert not (verdict.comment or verdict.xmp or verdict.says_edited)


def test_the_packet_is_that_of_the_standard(results):
    for name in ("x264.mp4", "pngs/0.png", "tiffs/0.tif"):
        assert xmp.read(results["x264.mp4"].parent / name) == XMP
    content = results["x264.mp4"].read_bytes()
    position = content.index(XMP)
    size, kind = struct.unpack(">I4s", content[position - 24 : position - 16])
    assert kind == b"uuid" and size == 24 + len(XMP)
    from PIL import Image

    with Image.open(results["pngs"] / "0.png") as image:
        assert image.info["XML:com.adobe.xmp"].encode() == XMP
        assert image.info["Comment"] == COMMENT


def test_the_manifest_of_the_input_is_kept(results, tmp_path):
    second = write(results["x264.mp4"], tmp_path / "second.mov")
    assert verify(second).inputs == ["x264.mp4 (with a manifest of its own)"]
    assert verify(second).code == WHOLE
    third = write(second, tmp_path / "third.mkv")
    assert verify(third).inputs == ["second.mov (with a manifest of its own)"]
    folder = write(third, tmp_path / "fourth")
    assert verify(folder).code == WHOLE and verify(folder).inputs[0].startswith("third.mkv")


def test_a_damaged_input_is_an_input(folder, tmp_path):
    """Signing comes last: what could be read must not be lost because of what could not."""
    clip = write(folder / "in", tmp_path / "in.mp4", Unmarked(), preset="ultrafast")
    clip.write_bytes(clip.read_bytes()[:-20])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(b"no picture")
    shutil.copy(folder / "in" / "1.png", tmp_path / "pictures" / "1.png")
    for source in (clip, tmp_path / "pictures"):
        verdict = verify(write(source, tmp_path / f"{source.stem}.mov"))
        assert verdict.code == WHOLE and verdict.inputs[0] in ("in.mp4", "0.png")


def test_a_certificate_that_c2pa_refuses_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "YEARS", -0.001)  # it has run out before the first file
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(UserError, match="cannot sign for C2PA"):
        make_marking(ProvenanceConfig(), tmp_path)


def test_a_remuxed_clip_keeps_only_the_comment(results, tmp_path):
    """What docs/provenance.md says of it."""
    with (
        av.open(str(results["x264.mp4"])) as source,
        av.open(str(tmp_path / "remuxed.mp4"), "w") as result,
    ):
        result.metadata.update(source.metadata)
        stream = result.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                result.mux(packet)
    verdict = verify(tmp_path / "remuxed.mp4")
    assert verdict.code == UNSIGNED and verdict.comment and not verdict.xmp


def test_an_old_sidecar_goes_with_its_result(folder, tmp_path):
    result = write(folder / "in", tmp_path / "out.mkv")
    first = result.with_name("out.mkv.c2pa").read_bytes()
    write(folder / "in", result)
    assert result.with_name("out.mkv.c2pa").read_bytes() != first
    assert verify(result).code == WHOLE


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = keys.signing_key(ProvenanceConfig())
    assert keys.signing_key(ProvenanceConfig()) == first
    key = tmp_path / "odfs_jax" / "provenance" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert keys.signing_key(ProvenanceConfig()).pem != first.pem


def test_a_key_of_ones_own(folder, tmp_path, monkeypatch):
    """Signed with another installation's key: whole, but by an issuer unknown here."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    keys.signing_key(ProvenanceConfig())
    monkeypatch.undo()
    made = tmp_path / "odfs_jax" / "provenance"
    config = ProvenanceConfig(key=str(made / "key.pem"), cert=str(made / "chain.pem"))
    result = write(folder / "in", tmp_path / "out.mp4", SignedMarking(config, folder / "in"))
    verdict = verify(result)
    assert verdict.code == WHOLE and verdict.signature == "Valid"
    assert "unknown issuer" in "\n".join(verdict.lines())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "k.pem"}, "provenance.cert: missing"),
        ({"cert": "c.pem"}, "provenance.key: missing"),
        ({"key": "k.pem", "cert": "c.pem"}, r"k\.pem: no such file"),
        ({"key": "open.pem", "cert": "chain.pem"}, r"open\.pem: other users can read this secret"),
        ({"key": "text", "cert": "text"}, "expected an unencrypted private key"),
        ({"key": "key.pem", "cert": "other.pem"}, "first certificate is not that of"),
    ],
)
def test_a_key_that_cannot_sign_is_refused(tmp_path, monkeypatch, changes, message):
    for name in ("other", "own"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / name))
        keys.signing_key(ProvenanceConfig())
    own, other = (tmp_path / n / "odfs_jax" / "provenance" for n in ("own", "other"))
    shutil.copy(other / "chain.pem", own / "other.pem")
    shutil.copy(own / "key.pem", own / "open.pem")
    (own / "open.pem").chmod(0o640)
    (own / "text").write_text("no key")
    (own / "text").chmod(0o600)
    paths = {name: str(own / file) for name, file in changes.items()}
    with pytest.raises(UserError, match=message):
        make_marking(ProvenanceConfig(**paths), tmp_path)


def test_turning_it_off_is_said(tmp_path, caplog):
    assert isinstance(make_marking(ProvenanceConfig(enabled=False), tmp_path), Unmarked)
    assert "provenance.enabled=false: the result says nowhere" in caplog.text


def test_a_config_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="no signing key can be made here"):
        make_marking(ProvenanceConfig(), tmp_path)


def run_script(*paths: Path) -> tuple[int, str, str]:
    command = [sys.executable, str(SCRIPT), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    return done.returncode, done.stdout, done.stderr


def test_the_script_says_it_and_its_exit_code_too(results, copied, tmp_path):
    code, out, _ = run_script(results["x264.mp4"], results["pngs"])
    assert code == 0 and out.count("whole; signed by this installation") == 2
    assert out.count("says: edited by AI") == 6
    path = copied("x264.mkv")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, out, _ = run_script(path, results["x264.mp4"])
    assert code == 1 and "BROKEN: altered after it was signed" in out
    code, out, _ = run_script(results["x264.mp4"].parent / "in" / "0.png")
    assert code == 3 and "signature  none" in out
    code, _, err = run_script(tmp_path / "missing.mp4")
    assert code == 2 and "no such file" in err and len(err.splitlines()) == 1
