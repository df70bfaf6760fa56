"""Commands killed (SIGKILL) at random moments; what they promise is looked at after each kill.

    python tests/storm.py [train extract sort convert pack studio] [kills=200] [out=storm.jsonl]

A command works on a small workspace, is killed, and is run again, up to CHAIN times in a row; then
it may end, and the result must be that of a run that nobody killed. A line of JSON a chain goes to
`out`. One kill in two falls anywhere in a run, the others after the command has begun to write.

What is killed is a process of its own, forked from this one, which has imported everything and
does nothing else: so a try costs no imports, and JAX and all threads begin in the forked one. The
command is given the settings that its command line would compose. docs/reliability.md has the
figures of a run; `pytest -m slow tests/test_storm.py` does less.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.expanduser("~/.cache/odfs_jax_tests")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
sys.path.insert(0, str(Path(__file__).parent / "conversion"))
sys.path.insert(0, str(Path(__file__).parent / "studio"))

import cv2
import jax
import numpy as np
import orbax.checkpoint as ocp
from models import write_model
from omegaconf import OmegaConf
from workspaces import HEIGHT, WIDTH, read_clip, write_clip

from odfs_jax import saved_model
from odfs_jax.config import compose
from odfs_jax.conversion.convert import convert
from odfs_jax.curation import rename
from odfs_jax.curation.faceset import faceset
from odfs_jax.curation.sort import sort
from odfs_jax.data.aligned_png import FaceData, Pose, Source, read_image_and_face, write_face
from odfs_jax.data.lock import LOCK
from odfs_jax.extraction.extract import extract
from odfs_jax.extraction.journal import JOURNAL, ExtractionJournal
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.landmarks68 import MEAN_HEAD
from odfs_jax.faces.types import FaceType
from odfs_jax.provenance.verify import WHOLE, verify
from odfs_jax.studio import app, server  # noqa: F401 app: imported before the forks
from odfs_jax.training import backups
from odfs_jax.training.checkpoint import read_history
from odfs_jax.training.train import train

CHAIN = 6  # kills in a row
PATIENCE = 900  # seconds for a run that nobody kills, on a machine that does other work
FRAMES, FACES, KEEP, SIZE = 40, 40, 30, 64


# ---- A workspace with all that the commands read


def points_of(frame: int) -> np.ndarray:
    """A face that moves, [68, 2] in the pixels of its frame."""
    noise = np.random.default_rng(frame).normal(0, 0.3, (68, 2))
    return MEAN_HEAD[:, :2] * (18, -18) + (50 + frame % 20, 45) + noise


def write_workspace(folder: Path) -> None:
    """Clips and faces of src and dst, a file of src's faces, and a model."""
    rng = np.random.default_rng(0)
    for side in ("src", "dst"):
        (folder / side).mkdir(parents=True)
        coarse = rng.integers(30, 226, (FRAMES, 5, 6, 3)).astype(np.uint8)
        images = [cv2.resize(c, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for c in coarse]
        times = write_clip(folder / f"{side}.mp4", images)
        for frame, image in enumerate(images[:FACES]):
            points = points_of(frame)
            matrix = alignment_matrix(points, FaceType.FULL, SIZE)
            picture = cv2.warpAffine(image, matrix, (SIZE, SIZE))
            rect = (*points.min(0).tolist(), *points.max(0).tolist())
            source = Source(f"{side}.mp4", frame, times[frame], WIDTH, HEIGHT, rect, points)
            pose = Pose(*rng.uniform(-45, 45, 3).tolist())
            aligned = transform(matrix, points)
            face = FaceData(FaceType.FULL, SIZE, aligned, source, pose, "mtcnn", "dlib68", 1.0)
            write_face(folder / side / "aligned" / f"{frame:05d}_0.png", picture, face)
    known = {str(frame): [{"landmarks": points_of(frame).tolist()}] for frame in range(FRAMES)}
    (folder / "faces.json").write_text(json.dumps({"version": 1, "frames": known}))
    write_model(folder / "models" / "tiny")


def settings(command: str, workspace: Path, *more: str) -> Any:
    config = compose(command, [f"workspace={workspace}", *more])
    OmegaConf.resolve(config)
    return config


def faces_in(folder: Path) -> list[bytes]:
    """What the faces of a folder and its trash hold: one lost or doubled changes it."""
    found = [*folder.glob("*.png"), *rename.trash_folder(folder).glob("*.png")]
    return sorted(path.read_bytes() for path in found if not path.name.startswith("."))


def left_in(folder: Path, *known: str) -> set[str]:
    """What lies in `folder` beside the `known`: it must be hidden, or called partial."""
    return {p.name for p in folder.iterdir() if p.name not in known and ".partial" not in p.name}


# ---- The commands: what is run, what holds after a kill, what it ends in


@dataclass(frozen=True)
class Command:
    """`run(workspace)` is killed; `check(workspace, before)` raises AssertionError.

    `before` is what `note(workspace)` gave before the run. `result` is compared with an unbroken
    run's.
    """

    run: Callable[[Path], None]
    begun: Callable[[Path], bool]
    check: Callable[[Path, Any], None]
    result: Callable[[Path], Any] = lambda _: None
    note: Callable[[Path], Any] = lambda _: None
    prepare: Callable[[Path], None] = lambda _: None
    ends: bool = True  # by itself


TRAIN = (
    "model.width=0.03125", "model.resolution=32", "batch_size=4", "iterations=12", "log_every=3",
    "preview_every=5", "save_minutes=0", "backups=2", "backup_minutes=0",
)  # fmt: skip


def state_of(checkpoint: Path) -> str:
    """A checksum of all arrays of a checkpoint."""
    total = hashlib.sha256()
    with warnings.catch_warnings():  # that the state is restored to where it was
        warnings.simplefilter("ignore")
        tree = ocp.PyTreeCheckpointer().restore(checkpoint.absolute() / "state")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        total.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return total.hexdigest()


def check_training(workspace: Path, before: int) -> None:
    """All checkpoints and backups can be read, and none is older than what there was."""
    folder = workspace / "models" / "h64"
    there = backups.checkpoints_in(folder)
    assert (there[0].step if there else 0) >= before
    for one in [*there, *backups.backups_in(folder)]:
        saved_model.read_config(one.checkpoint)
        read_history(one.checkpoint)
        state_of(one.checkpoint)
    known = ("config.yaml", "checkpoints", "backups", "control", "events", "losses.jsonl", LOCK)
    if folder.is_dir():
        assert not left_in(folder, *known, "preview.png", "previews")


def trained(workspace: Path) -> Any:
    last = backups.checkpoints_in(workspace / "models" / "h64")[0]
    return last.step, state_of(last.checkpoint), read_history(last.checkpoint).to_json()


def extracted(workspace: Path) -> list[Any]:
    """(frame, points, pixels) of every face; a PNG that is no face raises."""
    found = []
    for path in (workspace / "src" / "aligned").glob("*.png"):
        if not path.name.startswith("."):
            image, face = read_image_and_face(path)
            found.append((face.source.frame, face.source.landmarks.tolist(), image.tobytes()))
    return sorted(found)


def check_extracted(workspace: Path, _: Any) -> None:
    """Every face that the journal has is there, and whole."""
    folder = workspace / "src" / "aligned"
    if folder.is_dir():
        faces = {frame for frame, _, _ in extracted(workspace)}
        assert all(d.frame in faces for d in ExtractionJournal.read(folder).frames.values())
        names = {path.name for path in folder.glob("[!.]*.png")}
        assert not left_in(folder, JOURNAL, LOCK, *names)


def check_faces(side: str) -> Callable[[Path, list[bytes]], None]:
    """No face of `side` is lost or doubled."""
    return lambda workspace, before: _equal(faces_in(workspace / side / "aligned"), before)


def _equal(ours: Any, theirs: Any) -> None:
    assert ours == theirs


def names_of_faces(workspace: Path) -> dict[str, bytes]:
    folder = workspace / "src" / "aligned"
    found = [*folder.glob("*.png"), *rename.trash_folder(folder).glob("*.png")]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in found}


RESULTS = "result.mp4", "result.mkv", "result"


def converted(workspace: Path) -> Any:
    """The pixels of the results; they must be signed and whole.

    The signature of an mkv lies beside it, and may be missing after a kill, but never be wrong.
    """
    found = {}
    for path in (workspace / name for name in RESULTS):
        if path.exists():
            verdict = verify(path)
            assert verdict.code == WHOLE or (path.suffix == ".mkv" and verdict.signature is None)
        if path.is_dir():
            found |= {picture.name: picture.read_bytes() for picture in path.glob("*.png")}
        elif path.exists():
            found[path.name] = [f.to_ndarray(format="rgb24").tobytes() for f in read_clip(path)[0]]
    return found


def check_converted(workspace: Path, _: Any) -> None:
    """A result that is there is whole."""
    for name, there in converted(workspace).items():
        assert name not in RESULTS or len(there) == FRAMES
    known = "src", "dst", "src.mp4", "dst.mp4", "models", "faces.json", "result.mkv.c2pa", *RESULTS
    assert not {name for name in left_in(workspace, *known) if not name.endswith(LOCK)}


def convert_to_all(workspace: Path) -> None:
    """To a clip that holds its signature, to one with it beside, to a folder of pictures."""
    for path in RESULTS:
        more = "data=dst", "name=tiny", "merge=raw", f"output.path={workspace / path}"
        convert(settings("convert", workspace, *more, "output.preset=ultrafast"))


def packed(workspace: Path) -> bytes | None:
    path = workspace / "src_faces.zip"
    return path.read_bytes() if path.exists() else None


def pack(workspace: Path) -> None:
    if packed(workspace) is None:  # else it says that there is one already
        faceset(settings("faceset", workspace, "data=src", "action=pack"))


def serve(workspace: Path) -> None:
    """The studio, while a browser moves faces to the trash and back."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def browse() -> None:
        while True:
            for what, trashed in (("trash", False), ("restore", True)):
                with suppress(OSError):
                    folder = workspace / "src" / ("aligned_trash" if trashed else "aligned")
                    names = sorted(path.name for path in folder.glob("*.png"))[:25]
                    url = f"http://127.0.0.1:{port}"
                    content = json.dumps({"side": "src", "names": names}).encode()
                    headers = {"origin": url, "content-type": "application/json"}
                    request = urllib.request.Request(
                        f"{url}/api/faces/{what}", content, headers, method="POST"
                    )
                    urllib.request.urlopen(request, timeout=20).read()
                    (workspace / "moved").touch()
            time.sleep(0.01)

    threading.Thread(target=browse, daemon=True).start()
    server.studio(settings("studio", workspace, f"server.port={port}"))


COMMANDS = {
    "train": Command(
        lambda w: train(settings("train", w, "data=src_dst", *TRAIN)),
        begun=lambda w: bool(saved_model.steps_in(w / "models" / "h64")),
        check=check_training,
        result=trained,
        note=lambda w: saved_model.latest_step(w / "models" / "h64") or 0,
    ),
    "extract": Command(
        lambda w: extract(settings("extract", w, "data=src", "detector=file", f"size={SIZE}",
                                   f"detector.args.path={w}/faces.json")),
        begun=lambda w: (w / "src" / "aligned" / JOURNAL).exists(),
        check=check_extracted,
        result=lambda w: (extracted(w), (w / "src" / "no_face.txt").read_text()),
        prepare=lambda w: shutil.rmtree(w / "src" / "aligned"),
    ),
    "sort": Command(
        lambda w: sort(settings("sort", w, "data=src", "by=face_yaw", f"keep={KEEP}")),
        begun=lambda w: (w / "src" / "aligned" / rename.JOURNAL).exists(),
        check=check_faces("src"),
        result=names_of_faces,
        note=lambda w: faces_in(w / "src" / "aligned"),
    ),
    "convert": Command(
        convert_to_all,
        begun=lambda w: any(".partial" in path.name for path in w.iterdir()),
        check=check_converted,
        result=converted,
    ),
    "pack": Command(
        pack,
        begun=lambda w: any(".partial" in path.name for path in w.iterdir()),
        check=check_faces("src"),
        result=packed,
        note=lambda w: faces_in(w / "src" / "aligned"),
    ),
    "studio": Command(
        serve,
        begun=lambda w: (w / "moved").exists(),
        check=check_faces("src"),
        note=lambda w: faces_in(w / "src" / "aligned"),
        ends=False,
    ),
}  # fmt: skip


# ---- The storm


FORK = multiprocessing.get_context("fork")


def in_child(function: Callable, *args: Any) -> Any:
    """What `function` returns; it runs in a process of its own, so that no thread begins here."""
    ours, theirs = FORK.Pipe(duplex=False)

    def work() -> None:
        try:
            theirs.send((True, function(*args)))
        except Exception:
            theirs.send((False, traceback.format_exc()))
        theirs.close()
        os._exit(0)

    process = FORK.Process(target=work)
    process.start()
    theirs.close()
    good, value = ours.recv()
    process.join()
    assert good, value
    return value


def run(command: Command, workspace: Path, log: Path) -> None:
    """What is killed."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 1
    try:
        command.run(workspace)
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    os._exit(code)  # as fast as a kill: what the command promised is done


class Storm:
    """Kills of one command; `kills`, `half_way` (it had begun to write) and `chains` count."""

    def __init__(self, name: str, folder: Path, seed: int = 0) -> None:
        self.name, self.command, self.folder = name, COMMANDS[name], folder
        self.draw = random.Random(f"{name} {seed}")
        self.kills = self.half_way = self.chains = 0
        self.log = folder / "log"
        in_child(write_workspace, folder / "template")
        self.reach = {"any": 5.0, "begun": 0.5}  # seconds within which a kill falls
        self.expected = None
        if self.command.ends:
            for _ in range(2):  # the first one compiles
                workspace = self.workspace()
                self.finish(workspace)
            self.expected = in_child(self.command.result, workspace)

    def workspace(self) -> Path:
        """A new one."""
        workspace = self.folder / "work"
        shutil.rmtree(workspace, ignore_errors=True)
        shutil.copytree(self.folder / "template", workspace)
        self.command.prepare(workspace)
        self.log.unlink(missing_ok=True)
        return workspace

    def start(self, workspace: Path) -> Any:
        process = FORK.Process(target=run, args=(self.command, workspace, self.log))
        process.start()
        return process

    def finish(self, workspace: Path) -> None:
        """A run that nobody kills."""
        process = self.start(workspace)
        process.join(PATIENCE)
        assert process.exitcode == 0, (process.exitcode, self.said())

    def said(self) -> str:
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    def chain(self) -> dict[str, Any]:
        """Up to CHAIN kills of runs in one workspace, and one run to the end."""
        workspace, started = self.workspace(), time.monotonic()
        killed = half_way = 0
        while killed < CHAIN:
            before = in_child(self.command.note, workspace)
            (workspace / "moved").unlink(missing_ok=True)
            process, moment = self.start(workspace), self.draw.choice(list(self.reach))
            while (
                moment == "begun" and not self.command.begun(workspace) and process.exitcode is None
            ):
                time.sleep(0.001)
            process.join(self.draw.uniform(0, self.reach[moment]))
            begun = self.command.begun(workspace)
            process.kill()
            process.join()
            # The machine may do other work: kills keep to its speed.
            self.reach[moment] *= 0.7 if process.exitcode == 0 else 1.1
            if process.exitcode == 0:
                break
            assert process.exitcode == -9, (process.exitcode, self.said())
            killed, half_way = killed + 1, half_way + begun
            in_child(self.command.check, workspace, before)
        if self.command.ends:
            self.finish(workspace)
            found = in_child(self.command.result, workspace)
            assert found == self.expected, "another result than that of an unbroken run"
        assert "Traceback" not in self.said(), self.said()
        self.kills, self.half_way = self.kills + killed, self.half_way + half_way
        self.chains += 1
        seconds = round(time.monotonic() - started, 1)
        return {"command": self.name, "kills": killed, "half_way": half_way, "seconds": seconds}


def main() -> None:
    """See the module's text; the exit code is 1 where a promise was broken."""
    given = dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
    names = [a for a in sys.argv[1:] if "=" not in a] or list(COMMANDS)
    kills, out = int(given.get("kills", 200)), Path(given.get("out", "storm.jsonl"))
    broken = 0
    with tempfile.TemporaryDirectory(prefix="odfs_storm_") as folder:
        for name in names:
            begin = time.monotonic()
            storm = Storm(name, Path(folder) / name, int(given.get("seed", 0)))
            failed = 0
            while storm.kills < kills and failed < 5:
                try:
                    line = storm.chain()
                except Exception as error:
                    failed += 1
                    keep = Path(f"{out}.{name}.{failed}")
                    shutil.copytree(storm.folder / "work", keep, dirs_exist_ok=True)
                    line = {"command": name, "error": repr(error)[-2000:], "kept": str(keep)}
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            broken += failed
            minutes = (time.monotonic() - begin) / 60
            print(f"{name}: {storm.kills} kills, {storm.half_way} of them after it had begun to "
                  f"write, {storm.chains} results as unbroken, {failed} broken, {minutes:.1f} min",
                  flush=True)  # fmt: skip
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
