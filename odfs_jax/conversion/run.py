"""`python convert.py data=dst`: a clip and a trained model in, the swapped clip out."""

import logging
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from odfs_jax import devices
from odfs_jax.conversion.merge import build_merge
from odfs_jax.conversion.pipeline import Counts, FaceMerger
from odfs_jax.conversion.sheets import sheets_folder
from odfs_jax.conversion.targets import Targets, find_targets
from odfs_jax.data.faceset import read_eyes
from odfs_jax.data.frames import FrameSource, FrameWriter
from odfs_jax.data.prefetch import prefetch
from odfs_jax.data.video import open_frames, open_writer
from odfs_jax.data.workspace import find_input
from odfs_jax.errors import UserError
from odfs_jax.faces.proportions import anchor_matrix
from odfs_jax.inference import Swapper, make_swapper
from odfs_jax.progress import progress
from odfs_jax.provenance.mark import marking
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
    aligned = Path(config.data.dst.aligned)
    output = OmegaConf.to_object(config.output)
    with open_frames(clip, plates=True) as source:
        marks = marking(config.provenance, clip)
        targets = find_targets(aligned, source)
        model, params, src_eyes = load_for_inference(model_dir)
        swapper = make_swapper(model, params)
        log.info("model: %s", model_dir)
        path = result_path(output.path, Path(config.workspace), source)
        placement = find_placement(config.merge.anchor, src_eyes, aligned, swapper)
        merge = build_merge(swapper, config.merge, placement)
        sheets = sheets_folder(path) if config.debug else None
        merger = FaceMerger(swapper, merge, config.batch_size, sheets=sheets)
        start = time.monotonic()
        with open_writer(path, source, output, marks) as writer:
            _stream(source, targets, merger, writer)
        targets.skip_rest(clip)
        for error in source.bad:
            targets.skip(error)
        _summary(merger.counts, len(targets.skipped), time.monotonic() - start, path)


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
    made = swapper.made
    dst_eyes = read_eyes(aligned, "dst", made.face_type)
    return anchor_matrix(src_eyes * made.resolution, dst_eyes * made.resolution)


def result_path(configured: str | None, workspace: Path, source: FrameSource) -> Path:
    """Where the result goes: as configured, else a clip for a clip, a folder for a folder."""
    if configured is not None:
        return Path(configured)
    return workspace / ("result" if source.is_folder else "result.mp4")


def _stream(source: FrameSource, targets: Targets, merger: FaceMerger, writer: FrameWriter) -> None:
    """Decodes in one thread, merges in another and encodes here."""
    decoded = prefetch((frame for frame in source), AHEAD)
    merged = prefetch(merger.frames(decoded, targets), AHEAD)
    with closing(merged):
        for frame in progress(merged, source.count, "convert"):
            writer.write(frame)


def _summary(counts: Counts, skipped: int, seconds: float, path: Path) -> None:
    log.info(
        "%d frames, %d faces swapped, %d frames without a face, %d faces without a clear mask, "
        "%d files skipped, %.1f frames/s: %s",
        *(counts.frames, counts.faces, counts.empty, counts.unclear, skipped),
        *(counts.frames / seconds, path),
    )
