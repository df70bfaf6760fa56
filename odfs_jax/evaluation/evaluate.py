"""`python scripts/evaluate.py data=dst`: a swapped clip in, its figures and a picture sheet out."""

import dataclasses
import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import DictConfig

from odfs_jax.data import atomic
from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.data.media import png
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.media.frames import FrameSource, is_scene_cut, subsampled
from odfs_jax.data.parallel import cores
from odfs_jax.data.sampling import evenly_spread
from odfs_jax.data.workspace import aligned_files, default_result, find_input, image_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.evaluation.attributes import (
    Attributes,
    FaceView,
    changed_pixels,
    identity_figures,
    motion_between,
    visible_face,
)
from odfs_jax.evaluation.report import FIGURES, is_as_good, sheet, table
from odfs_jax.evaluation.truth import Score, Truth, baselines, flat_face, load_truth, score
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.landmarkers.face_mesh import FaceMeshLandmarker, FaceMeshSettings
from odfs_jax.faces import identity
from odfs_jax.faces.hull import face_mask
from odfs_jax.runtime import devices
from odfs_jax.runtime.extras import advice
from odfs_jax.runtime.output import say
from odfs_jax.runtime.progress import progress

log = logging.getLogger(__name__)

FRAMES_PER_CALL = 8  # whose landmarks are found together
EMBEDDED = 48  # faces of each kind whose identity is taken, evenly spaced
SHEET_ROWS, SHEET_CELL = 5, 256  # of the picture sheet; pixels


class Scene(NamedTuple):
    """One frame: its number, dst's points [68, 2] of the measured face, and its pictures."""

    frame: int
    landmarks: np.ndarray
    dst: np.ndarray  # uint8 RGB [H, W, 3]
    swap: np.ndarray


def evaluate(config: DictConfig) -> None:
    """Measures the result that an `EvaluateConfig` names, and prints a table. Raises UserError."""
    report, target = evaluate_result(config)
    say(*summary(report).splitlines(), str(target), str(target.with_suffix(".png")))


def evaluate_result(config: DictConfig) -> tuple[dict, Path]:
    """(the report, its file <result>_evaluation.json) of the result that `config` names.

    `config` is an `EvaluateConfig`. Writes the file and <result>_evaluation.png. Raises UserError.
    """
    devices.prepare(config.hardware)
    if "dst" not in config.data.sides:
        raise UserError("data=src: the result is compared with dst; run it with data=dst")
    clip = find_input(config.workspace, "dst", config.data.dst)
    result = _find_result(config.result, Path(config.workspace), clip)
    truth = load_truth(Path(config.truth)) if config.truth is not None else []
    src = aligned_files(Path(config.data.src.aligned), "src")
    report, picture = measure(result, clip, Path(config.data.dst.aligned), src, truth)
    report["truth"] = config.truth
    target = result.with_name(f"{result.stem}_evaluation.json")
    atomic.write_text(target, json.dumps(report, indent=1) + "\n")
    atomic.write_bytes(target.with_suffix(".png"), png.encode(picture))
    return report, target


def measure(
    result: Path, clip: Path, aligned: Path, src: list[Path], truth: list[Truth]
) -> tuple[dict, np.ndarray]:
    """(the report that is written as JSON, the picture sheet) of the swapped `result` of `clip`.

    `aligned` is the folder of dst's aligned faces, `src` are src's aligned PNGs, `truth` is empty
    where there is none. Of several faces in a frame the one that changed most is measured. Raises
    UserError.
    """
    true_of = {t.frame: t for t in truth}
    with open_frames(clip) as dst_frames, open_frames(result) as swap_frames:
        faces = _faces_by_frame(aligned, dst_frames)
        shown = set(_spread(sorted(true_of or faces), SHEET_ROWS))
        most = EMBEDDED if identity.is_installed() else 0
        if not most:
            log.warning("identity is not measured: dlib is not installed; %s", advice("identity"))
        embedded = set(_spread(sorted(faces), most))
        embedded_truth = embedded | set(_spread(sorted(true_of), most))
        attributes: dict[str, Attributes] = defaultdict(Attributes)
        embeddings: dict[str, list[np.ndarray]] = defaultdict(list)
        sheet_rows, pairs, frames, unchanged = [], {}, 0, 0
        landmarker, last = FaceMeshLandmarker(FaceMeshSettings(flip=True)), None
        scenes = _scenes(dst_frames, swap_frames, faces)
        for batch in _batches(progress(scenes, len(faces), "evaluate"), FRAMES_PER_CALL):
            for scene, views in _with_landmarks(batch, true_of, landmarker):
                dst, true = views["dst"], true_of.get(scene.frame)
                frames += 1
                unchanged += not changed_pixels(scene.dst, scene.swap).any()
                motion = None
                if last is not None and _follows(last[0], scene):
                    motion = motion_between(last[1], dst)
                last = scene, dst
                visible = visible_face(scene.landmarks, *scene.dst.shape[:2])
                for name, view in views.items():
                    is_embedded = scene.frame in (embedded_truth if name == "truth" else embedded)
                    if is_embedded:
                        embeddings[name].append(identity.embedding(view.image, view.landmarks))
                    attributes[name].add(dst, view, visible, None if name == "truth" else motion)
                if true is not None:
                    pairs[scene.frame] = scene.dst, scene.swap
                if scene.frame in shown:
                    images = [scene.dst, scene.swap, *([true.image] if true else [])]
                    sheet_rows.append((images, true.landmarks if true else scene.landmarks))
    if missing := sorted(true_of.keys() - pairs.keys()):
        raise UserError(f"{clip}: frame {missing[0]} of the truth has no aligned face of dst")
    values = {name: own.figures() for name, own in attributes.items()}
    people = [_embedding_of(file) for file in _spread(src, most)]
    for name, own in embeddings.items():
        values[name] |= identity_figures(own, people, embeddings["dst"])
    report = {
        "result": str(result),
        "dst": str(clip),
        "frames": frames,
        "frames_unchanged": unchanged,
        "frames_with_truth": len(truth),
        "values": values,
    }
    if truth:
        scores = _scores(truth, pairs)
        for name, own in scores.items():
            values.setdefault(name, {}).update(_means(own))
        report |= {"above_dst": _above(scores["swap"], scores["dst"])}
        report["by_frame"] = [
            {"frame": t.frame} | {k: dataclasses.asdict(v[i]) for k, v in scores.items()}
            for i, t in enumerate(truth)
        ]
    columns = ["dst", "swap", *(["truth"] if truth else [])]
    return report, sheet(columns, sheet_rows, SHEET_CELL)


def summary(report: dict) -> str:
    """The table of a report and what to know of it, as text that Markdown shows well."""
    frames, true_frames = report["frames"], report["frames_with_truth"]
    lines = [f"{report['result']}: {frames} frames with a face, {true_frames} with truth", ""]
    lines += [table(report["values"])]
    lines += ["*: a blank, which holds nothing of src, is at least as good as the swap."]
    if above := report.get("above_dst"):
        shares = f"{above['ssim']:.0%} of the frames by SSIM, {above['eyes_registered']:.0%}"
        lines += [f"Above untouched dst: on {shares} by the eyes, registered."]
    if report["frames_unchanged"]:
        lines += [f"{report['frames_unchanged']} of {frames} frames are as dst: nothing swapped."]
    return "\n".join(lines) + "\n"


def _find_result(configured: str | None, workspace: Path, clip: Path) -> Path:
    result = Path(configured or default_result(workspace, clip))
    if not result.exists():
        raise UserError(f"{result}: no result here; run: python convert.py data=dst")
    return result


def _faces_by_frame(aligned: Path, source: FrameSource) -> dict[int, list[np.ndarray]]:
    """The points [68, 2] of dst's faces in each frame of `source`, by its number."""
    faces = defaultdict(list)
    pictures = {file.name: number for number, file in enumerate(image_files(source.path))}
    for path in aligned_files(aligned, "dst"):
        try:
            face = read_face(path).source
        except BadFileError as error:
            log.warning("skipped: %s", error)
            continue
        if face.pts is None and face.file in pictures:  # a picture is known by its name
            faces[pictures[face.file]].append(face.landmarks)
        elif face.pts is not None and face.file == source.path.name:
            faces[face.frame].append(face.landmarks)
    if not faces:
        raise UserError(f"{aligned}: no face of {source.path}; run: python extract.py data=dst")
    return faces


def _scenes(
    dst: FrameSource, swap: FrameSource, faces: dict[int, list[np.ndarray]]
) -> Iterator[Scene]:
    """The frames with a face, of both clips. Raises UserError when the clips do not match."""
    for before, after in zip_longest(dst, swap):
        if before is None or after is None or before.index != after.index:
            raise UserError(
                f"{swap.path}: other frames than {dst.path}; expected one for each of its frames"
            )
        if before.image.shape != after.image.shape:
            raise UserError(
                f"{swap.path}: frame {after.index} is {after.image.shape}, that of {dst.path} "
                f"{before.image.shape}; expected the same size"
            )
        own = faces.get(before.index, [])
        if len(own) > 1:
            changed = changed_pixels(before.image, after.image)
            shape = changed.shape
            own = sorted(own, key=lambda p: -(changed & (face_mask(p, *shape) > 0)).sum())
        if own:
            yield Scene(before.index, own[0], before.image, after.image)


def _with_landmarks(
    scenes: list[Scene], true_of: dict[int, Truth], landmarker: FaceMeshLandmarker
) -> Iterator[tuple[Scene, dict[str, FaceView]]]:
    """Each scene with its face as measured in dst, the swap, a blank and a perfect swap.

    The points are found in all pictures alike, starting from dst's; a frame is left out when none
    are found. The perfect swap, where there is truth, is the truth inside its hull.
    """
    pictures = []
    for scene in scenes:
        inside = face_mask(scene.landmarks, *scene.dst.shape[:2]) > 0
        own = {"swap": scene.swap, "dst": scene.dst, "flat": flat_face(scene.dst, inside)}
        if true := true_of.get(scene.frame):
            if true.image.shape != scene.dst.shape:
                raise UserError(
                    f"frame {scene.frame} is {scene.dst.shape}, its truth {true.image.shape}"
                )
            own["truth"] = np.where(true.hull[..., None], true.image, scene.dst)
        pictures.append(own)
    images = [image for own in pictures for image in own.values()]
    starts = [
        Detection(np.concatenate([s.landmarks.min(0), s.landmarks.max(0)]), None, 1.0, s.landmarks)
        for s, own in zip(scenes, pictures, strict=True)
        for _ in own
    ]
    points = iter(landmarker(images, starts))
    for scene, own in zip(scenes, pictures, strict=True):
        views = {name: FaceView(image, next(points)) for name, image in own.items()}
        if all(np.isfinite(view.landmarks).all() for view in views.values()):
            yield scene, views
        else:
            log.warning("frame %d: no landmarks can be found; left out", scene.frame)


def _follows(before: Scene, after: Scene) -> bool:
    """True when `after` shows the same face one frame later, in the same shot."""
    return after.frame == before.frame + 1 and not is_scene_cut(
        subsampled(before.dst), subsampled(after.dst)
    )


def _scores(
    truth: list[Truth], pairs: dict[int, tuple[np.ndarray, np.ndarray]]
) -> dict[str, list[Score]]:
    """The scores of the swap and of all baselines, each in the order of `truth`."""

    def of_frame(t: Truth) -> dict[str, Score]:
        dst, swap = pairs[t.frame]
        return {name: score(p, t) for name, p in ({"swap": swap} | baselines(t, dst)).items()}

    with ThreadPoolExecutor(cores()) as pool:
        by_frame = list(progress(pool.map(of_frame, truth), len(truth), "against the truth"))
    return {name: [own[name] for own in by_frame] for name in by_frame[0]}


def _means(scores: list[Score]) -> dict[str, float]:
    names = [field.name for field in dataclasses.fields(Score)]
    return {name: float(np.mean([getattr(s, name) for s in scores])) for name in names}


def _above(swap: list[Score], dst: list[Score]) -> dict[str, float]:
    """For each figure the share of frames where the swap is better than untouched dst."""
    return {
        figure.key: float(
            np.mean(
                [
                    not is_as_good(figure, getattr(d, figure.key), getattr(s, figure.key))
                    for s, d in zip(swap, dst, strict=True)
                ]
            )
        )
        for figure in FIGURES
        if figure.key in {field.name for field in dataclasses.fields(Score)}
    }


def _embedding_of(path: Path) -> np.ndarray:
    image, face = read_image_and_face(path)
    return identity.embedding(image, face.landmarks)


def _spread(items: list, count: int) -> list:
    """`count` of `items`, evenly spaced, or all of them where there are fewer."""
    return [items[i] for i in evenly_spread(len(items), min(count, len(items)))]


def _batches(items: Iterator, size: int) -> Iterator[list]:
    while batch := list(islice(items, size)):
        yield batch
