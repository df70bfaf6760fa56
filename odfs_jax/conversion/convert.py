"""`python convert.py data=dst`: a clip and a trained model in, the swapped clip out."""

import hashlib
import json
import logging
import time
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
from omegaconf import DictConfig, OmegaConf

import odfs_jax
from odfs_jax.conversion.merge import build_merge
from odfs_jax.conversion.pipeline import Counts, FaceMerger, Resumption, Shots, sheets_folder
from odfs_jax.conversion.shots import Shot, find_shots, read_shots
from odfs_jax.conversion.target_faces import TargetFaces, build_selection, find_target_faces
from odfs_jax.data.faceset import read_eyes
from odfs_jax.data.media.frame_io import open_frames, open_writer
from odfs_jax.data.media.frames import FrameSource, FrameWriter
from odfs_jax.data.parallel import prefetch
from odfs_jax.data.workspace import find_input, image_files
from odfs_jax.errors import UserError
from odfs_jax.faces.align import anchor_matrix
from odfs_jax.inference import Params, Swapper, make_swapper
from odfs_jax.provenance.mark import marking
from odfs_jax.runtime import devices
from odfs_jax.runtime.progress import progress
from odfs_jax.training.checkpoint import load_for_inference

log = logging.getLogger(__name__)

ANCHORS = ("face", "eyes")
AHEAD = 4  # frames decoded, and frames merged, that wait for the next stage


def convert(config: DictConfig) -> None:
    """Swaps the faces of dst as a `ConvertConfig` says. Raises UserError."""
    devices.prepare(config.hardware)
    if "dst" not in config.data.sides:
        raise UserError("data=src: the face is put into dst; run: python convert.py data=dst")
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: expected at least 1")
    clip = find_input(config.workspace, "dst", config.data.dst)
    model_dir = find_model(Path(config.workspace) / "models", config.name)
    plan = read_shots(find_shots(config.shots, clip), config.merge)
    selection = build_selection(config.frames, config.identity, config.identity_distance)
    output = OmegaConf.to_object(config.output)
    with open_frames(clip, plates=True) as source:
        marks = marking(config.provenance, clip)
        path = result_path(output.path, Path(config.workspace), source)
        targets = find_target_faces(Path(config.data.dst.aligned), source, selection)
        model, params, src_eyes = load_for_inference(model_dir)
        swapper = make_swapper(model, params, config.precision)
        log.info("model: %s", model_dir)
        shots = build_shots(plan, swapper, config, src_eyes, sheets_folder(path))
        start, counts = time.monotonic(), shots.mergers[0].counts
        settings = "" if path.suffix else _settings(config, plan, targets, params, clip)
        with open_writer(path, source, output, marks, settings) as writer:
            kept = _stream(source, targets, shots, writer)
        targets.skip_rest(clip)
        for error in source.bad:
            targets.skip(error)
        _summary(counts, targets, kept, time.monotonic() - start, path)


def build_shots(
    plan: list[Shot],
    swapper: Swapper,
    config: DictConfig,
    src_eyes: np.ndarray,
    sheets: Path | None = None,
) -> Shots:
    """The mergers of all shots, one for all that have the same settings. Raises UserError.

    With debug=true they draw sheets into the folder `sheets`.
    """
    drawn = sheets if config.debug else None
    counts = Counts()
    mergers: dict[str, FaceMerger] = {}
    for shot in plan:
        if shot.settings in mergers:
            continue
        aligned = Path(config.data.dst.aligned)
        placement = find_placement(shot.merge.anchor, src_eyes, aligned, swapper)
        try:
            merge = build_merge(swapper, shot.merge, placement)
        except UserError as error:
            where = f"the shot from {shot.start}: " if shot.start else ""
            raise UserError(f"{where}{error}") from error
        mergers[shot.settings] = FaceMerger(swapper, merge, config.batch_size, counts, drawn)
    return Shots([shot.start for shot in plan], [mergers[shot.settings] for shot in plan])


def find_model(models: Path, name: str | None) -> Path:
    """The folder of the model `name`, or of the only one in `models`. Raises UserError."""
    found = sorted(p.name for p in models.glob("*") if (p / "checkpoints").is_dir())
    if not found:
        raise UserError(f"{models}: no trained model here; run: python train.py")
    if name is not None and name not in found:
        raise UserError(f"name={name}: no such model in {models}; there is: {', '.join(found)}")
    if name is None and len(found) > 1:
        raise UserError(f"several models in {models}; say which with name=: {', '.join(found)}")
    return models / (name or found[0])


def find_placement(
    anchor: str, src_eyes: np.ndarray, aligned: Path, swapper: Swapper
) -> np.ndarray | None:
    """Where the new face is laid on dst's, [2, 3] in the model's pixels; None: on its own place.

    One for the whole clip, from the eyes of both people's facesets. Raises UserError.
    """
    if anchor not in ANCHORS:
        raise UserError(f"merge.anchor={anchor}: expected {' or '.join(ANCHORS)}")
    if anchor == "face":
        return None
    made = swapper.output_spec
    dst_eyes = read_eyes(aligned, "dst", made.face_type)
    return anchor_matrix(src_eyes * made.resolution, dst_eyes * made.resolution)


def result_path(configured: str | None, workspace: Path, source: FrameSource) -> Path:
    """Where the result goes: as configured, else a clip for a clip, a folder for a folder."""
    if configured is not None:
        return Path(configured)
    return workspace / ("result" if source.is_folder else "result.mp4")


def _stream(source: FrameSource, targets: TargetFaces, shots: Shots, writer: FrameWriter) -> int:
    """Decodes in one thread, merges in another and encodes here.

    Returns how many frames were there already, from a run that was stopped.
    """
    batch_size = shots.mergers[0].batch_size
    lead = max(merger.merge.window for merger in shots.mergers)
    resumption = Resumption(writer, targets, shots, batch_size, lead)
    decoded = prefetch((frame for frame in source), AHEAD)
    merged = prefetch(shots.frames(resumption.frames(decoded), targets), AHEAD)
    with closing(merged):
        for frame in progress(merged, source.count, "convert"):
            resumption.write(frame)
    return resumption.kept


def _settings(
    config: DictConfig, plan: list[Shot], targets: TargetFaces, params: Params, clip: Path
) -> str:
    """All that a frame of the result depends on, for a run that goes on where another stopped."""
    weights = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        weights.update(np.asarray(leaf).tobytes())
    files = [clip] if clip.is_file() else image_files(clip)
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    settings = {
        "version": odfs_jax.__version__,
        "clip": hashlib.sha256(repr(states).encode()).hexdigest(),
        "weights": weights.hexdigest(),
        "precision": config.precision,
        "faces": targets.digest(),
        "shots": {shot.start: shot.settings for shot in plan},
        "output": OmegaConf.to_container(config.output),
        "marked": config.provenance.enabled,
    }
    return json.dumps(settings, indent=1, sort_keys=True)


def _summary(counts: Counts, targets: TargetFaces, kept: int, seconds: float, path: Path) -> None:
    log.info(
        "%d frames, %d faces swapped, %d frames without a face, %d faces without a clear mask, "
        "%d files skipped%s%s, %.1f frames/s: %s",
        *(counts.frames, counts.faces, counts.empty, counts.unclear, len(targets.skipped)),
        f", {targets.unselected} faces not selected" if targets.unselected else "",
        f", {kept} frames kept of an earlier run" if kept else "",
        *(counts.frames / seconds, path),
    )
