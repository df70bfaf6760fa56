"""`python convert.py data=dst`: a clip and a trained model in, the swapped clip out."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
from omegaconf import DictConfig, OmegaConf

import odfs_jax
from odfs_jax.config import MergeConfig
from odfs_jax.conversion.auto import AUTO, fitting
from odfs_jax.conversion.dfm import is_dfm, load_dfm
from odfs_jax.conversion.merge import (
    Merge,
    Programs,
    build_merge,
    build_seeing,
    check_merge,
    program_key,
)
from odfs_jax.conversion.pipeline import (
    Counts,
    FaceMerger,
    Resumption,
    ShotMergers,
    sheets_folder,
)
from odfs_jax.conversion.shots import (
    SUFFIX,
    Shot,
    find_shots,
    ramp_merges,
    read_shots,
    write_shots,
)
from odfs_jax.conversion.target_faces import TargetFaces, build_selection, find_target_faces
from odfs_jax.data.faceset import read_eyes, warn_unless_alike
from odfs_jax.data.lock import locked_result
from odfs_jax.data.media.frame_io import join_parts, open_frames, open_writer
from odfs_jax.data.media.parts import Part
from odfs_jax.data.parallel import prefetch
from odfs_jax.data.workspace import default_result, find_input, image_files
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import enlarged
from odfs_jax.faces.align import anchor_matrix
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.frame_ranges import FrameRanges, parse_shard
from odfs_jax.inference import Swapper, make_masker, make_swapper
from odfs_jax.provenance.signing import make_marking
from odfs_jax.runtime import devices
from odfs_jax.runtime.progress import progress
from odfs_jax.saved_model import SavedModel, find_model, load_model

log = logging.getLogger(__name__)

ANCHORS = ("face", "eyes")
LARGEST_SCALE = 3.0  # of a face by its anchor: more are no eyes of two people
AHEAD = 4  # frames decoded, and frames merged, that wait for the next stage


def convert(config: DictConfig) -> None:
    """Swaps the faces of dst with the settings of a `ConvertConfig`. Raises UserError.

    With `shard` this is one of the workers that do a part of the clip each; the last of them to end
    joins the parts.
    """

    # ---- Settings ----

    devices.prepare(config.hardware)
    if "dst" not in config.data.sides:
        raise UserError("data=src: the face is put into dst; run: python convert.py data=dst")
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: expected at least 1")
    workspace, aligned = Path(config.workspace), Path(config.data.dst.aligned)
    clip = find_input(config.workspace, "dst", config.data.dst)
    if is_dfm(config.name):
        model_path = Path(config.name)
    else:
        model_path = find_model(workspace / "models", config.name)
    shots = read_shots(find_shots(config.shots, clip), config.merge)
    selection = build_selection(config.frames, config.identity, config.identity_distance)
    output = OmegaConf.to_object(config.output)
    shard = parse_shard(config.shard, config.shards)
    if shard is not None and config.debug:
        raise UserError("debug=true: its sheets are drawn by one worker; leave shard= out")

    result = default_result(workspace, clip) if output.path is None else Path(output.path)

    with ExitStack() as stack:
        source = stack.enter_context(open_frames(clip, plates=True))
        lock = stack.enter_context(ExitStack())  # left before the parts are joined
        lock.enter_context(locked_result(result, "converting", shard and str(shard)))
        marks = make_marking(config.provenance, clip)

        # ---- The faces to swap, and the model ----

        targets = find_target_faces(aligned, source, selection)
        log.info("model: %s", model_path)
        swapper, saved = load_swapper(model_path, config)
        src_eyes = None if saved is None else saved.src_eyes
        if saved is not None and saved.landmarkers:  # old models do not tell
            finders = {"the model": saved.landmarkers, "dst": targets.landmarkers}
            warn_unless_alike(finders, "extract dst again with the model's landmarks=")

        # ---- What a mask network sees, where merge.mask asks for one ----

        see = None
        if any(shot.merge.mask.startswith("network") for shot in shots):
            models = workspace / "models"
            see = load_seeing(models, config.mask_model, config.precision, swapper.output_spec)

        # ---- Colors and masks that fit each shot's faces, where they are auto ----

        for shot in shots:
            with naming(shot):
                check_merge(shot.merge)
        shots, reasons = choose_auto(shots, swapper, clip, targets)
        for reason in reasons:
            log.info("%s", reason)

        # ---- A merger for each shot; shots with the same settings share one ----

        counts = Counts()
        sheets = sheets_folder(result) if config.debug else None
        mergers: dict[str, FaceMerger] = {}
        programs: dict[str, Programs] = {}  # merges that differ in amounts share what is compiled
        dst_eyes = cache(partial(read_eyes, aligned, "dst", swapper.output_spec.face_type))

        def build(merge_config: DictConfig) -> Merge:
            dst_from_src = find_anchor(merge_config, src_eyes, dst_eyes, swapper)
            key = program_key(swapper, merge_config, dst_from_src)
            merge = build_merge(swapper, merge_config, dst_from_src, programs.get(key))
            programs[key] = merge.programs
            return merge

        for shot in shots:
            if shot.settings in mergers:
                continue
            with naming(shot):
                merge = build(shot.merge)
            own = see if merge.sees == "network" else None
            mergers[shot.settings] = FaceMerger(
                swapper, merge, config.batch_size, counts, sheets, own
            )
        merger_of_shot = [mergers[shot.settings] for shot in shots]
        for number, (before, shot) in enumerate(pairwise(shots), 1):
            if shot.ramp:
                ramp = ramp_merges(before.merge, shot)
                merges = {frame: build(merge_config) for frame, merge_config in ramp.items()}
                merger_of_shot[number] = replace(merger_of_shot[number], ramp=merges)
        shot_mergers = ShotMergers([shot.start for shot in shots], merger_of_shot)
        window = max(merger.window for merger in merger_of_shot)

        # ---- All that a frame depends on: a stopped run goes on only where this is the same ----

        settings = ""
        if shard is not None or not result.suffix:  # a whole clip begins at its first frame
            weights = hashlib.sha256()
            seeing = () if see is None else see.args
            for leaf in jax.tree.leaves((swapper.params, seeing)):
                weights.update(np.asarray(leaf).tobytes())
            files = [clip] if clip.is_file() else image_files(clip)
            states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
            settings = json.dumps(
                {
                    "version": odfs_jax.__version__,
                    "clip": hashlib.sha256(repr(states).encode()).hexdigest(),
                    "weights": weights.hexdigest(),
                    "face": [asdict(swapper.input_spec), asdict(swapper.output_spec)],
                    "precision": config.precision,
                    "morph": config.morph,
                    "faces": targets.digest(),
                    "shots": {shot.start: [shot.settings, shot.ramp] for shot in shots},
                    "output": OmegaConf.to_container(config.output, resolve=True),
                    "marked": config.provenance.enabled,
                }
                # It may move a color by a level, which would show where parts meet.
                | ({} if shard is None else {"batch_size": config.batch_size}),
                indent=1,
                sort_keys=True,
            )

        # ---- The frames of this worker, and those that its own ones depend on ----

        own, part, lead = FrameRanges(), None, 0
        if shard is not None:
            count = source.exact_count()
            own = own.part(shard.number, shard.count, count)
            part = Part(shard, own)
            first, stop = shot_mergers.whole_batches(own, config.batch_size, window)
            source.select(None, stop, first)
            lead = own.ranges[0][0] - first

        # ---- Decode in one thread, merge in another, encode here ----

        start = time.monotonic()
        with open_writer(result, source, output, marks, settings, part) as writer:
            if writer.is_complete:
                source.select(None, 0)
            resumption = Resumption(writer, targets, shot_mergers, config.batch_size, window)
            decoded = prefetch((frame for frame in source), AHEAD)
            merged = prefetch(shot_mergers.frames(resumption.frames(decoded), targets), AHEAD)
            with closing(merged):
                total = source.count if part is None else own.count(count)
                for frame in progress(merged, total, "convert"):
                    resumption.write(frame)
        if not writer.is_complete:
            targets.skip_rest(clip, own)
        for error in source.bad:
            targets.skip(error)
        seconds = time.monotonic() - start

        # ---- The last worker to end makes the result ----

        if shard is not None:
            lock.close()
            why_not = join_parts(result, source, output, marks, shard.count)
            log.info("shard %s has ended: %s: %s", shard, result, why_not or "whole, and signed")

    # ---- What was chosen, as a file that can be changed; summary ----

    if reasons:
        chosen = result.with_name(f"{result.stem}_merge{SUFFIX}")
        entries = [
            {"from": shot.start}
            | ({"ramp": shot.ramp} if shot.ramp else {})
            | OmegaConf.to_container(shot.merge)
            for shot in shots
        ]
        write_shots(chosen, entries, shots[0].merge)
        log.info("all merge settings: %s; change them in a copy, dst%s", chosen, SUFFIX)
    log.info(
        "%d frames, %d faces swapped, %d frames without a face, %d faces without a clear mask, "
        "%d files skipped%s%s%s, %.1f frames/s: %s",
        *(counts.frames, counts.faces, counts.empty, counts.unclear, len(targets.skipped)),
        f", {counts.unselected} frames not selected" if counts.unselected else "",
        f", {targets.unselected} faces not selected" if targets.unselected else "",
        f", {kept} frames kept of an earlier run" if (kept := resumption.kept - lead) > 0 else "",
        *(counts.frames / seconds, result),
    )


def load_swapper(path: Path, config: DictConfig) -> tuple[Swapper, SavedModel | None]:
    """(the swapper of the model at `path`, the model; None: it is a DFM).

    `path` is a model's folder or a DFM, and `config` a `ConvertConfig`. Raises UserError.
    """
    if is_dfm(config.name):
        if config.precision != "float32":
            raise UserError(f"precision={config.precision}: a DFM computes as it was exported")
        return load_dfm(path, config.dfm_face_type, config.morph), None
    if config.dfm_face_type is not None:
        raise UserError(f"dfm_face_type={config.dfm_face_type}: {path} is no DFM; it knows its own")
    model = load_model(path)
    swapper = make_swapper(model.config, model.params, config.precision, morph=config.morph)
    return swapper, model


def load_seeing(
    models: Path, name: str | None, precision: str, output_spec: FaceSpec
) -> Callable[..., jax.Array]:
    """`build_seeing` of the mask network `name`, or of the only one in `models`.

    Its parameters are bound to it. Raises UserError.
    """
    model = load_model(find_model(models, name, masks=True))
    masker = make_masker(model.config, model.params, precision)
    return partial(build_seeing(masker, output_spec), masker.params)


@contextmanager
def naming(shot: Shot) -> Iterator[None]:
    """A UserError in it says which shot it is about, where that is not the first."""
    try:
        yield
    except UserError as error:
        where = f"the shot from {shot.start}: " if shot.start else ""
        raise UserError(f"{where}{error}") from error


def choose_auto(
    shots: list[Shot], swapper: Swapper, clip: Path, targets: TargetFaces
) -> tuple[list[Shot], list[str]]:
    """(the `shots` with what each `auto` of theirs stands for; why, a line for each choice).

    A shot whose faces the network gives no mask for, or that has none, keeps its colors.
    """
    chosen, reasons = [], []
    for number, shot in enumerate(shots):
        keys = [key for key in ("color", "mask") if shot.merge[key] == AUTO]
        if not keys:
            chosen.append(shot)
            continue
        end = shots[number + 1].start if number + 1 < len(shots) else math.inf
        own = [source for source in targets.sources if shot.start <= source.frame < end]
        found = fitting(swapper, clip, own)
        merge = OmegaConf.merge(shot.merge, {key: found[key][0] for key in keys})
        chosen.append(replace(shot, merge=merge, settings=OmegaConf.to_yaml(merge)))
        where = f"from frame {shot.start} on, " if len(shots) > 1 else ""
        reasons += [f"{where}merge.{key}={found[key][0]}: {found[key][1]}" for key in keys]
    return chosen, reasons


def find_anchor(
    merge: MergeConfig,
    src_eyes: np.ndarray | None,
    read_dst_eyes: Callable[[], np.ndarray],
    swapper: Swapper,
) -> np.ndarray | None:
    """dst_from_src [2, 3] of `merge.anchor` and `merge.scale`, in the model's pixels.

    There is one matrix for the whole clip; None: the identity. The anchor "eyes" lays the mean eyes
    of src's faceset, `src_eyes` [12, 2] in shares of the face square, on those of dst's, which
    `read_dst_eyes` returns; the face is then scaled about the middle of dst's eyes, so that they
    stay where they are. "face", and an unknown `src_eyes` (None), leave the face where it is, and
    it is scaled about its own middle. Raises UserError for an unknown anchor, for a faceset that
    cannot be read, and for eyes that are none.
    """
    if merge.anchor not in ANCHORS:
        raise UserError(f"merge.anchor={merge.anchor}: expected {' or '.join(ANCHORS)}")
    resolution, factor = swapper.output_spec.resolution, 1 + merge.scale / 100
    if merge.anchor == "eyes" and src_eyes is None:
        log.info("merge.anchor=eyes: a DFM does not say where src's are; faces stay where they are")
    if merge.anchor == "face" or src_eyes is None:
        middle = np.full(2, (resolution - 1) / 2)
        return None if factor == 1 else enlarged(np.eye(2, 3), factor, middle)
    dst_eyes = read_dst_eyes() * resolution
    dst_from_src = anchor_matrix(src_eyes * resolution, dst_eyes)
    if not 1 / LARGEST_SCALE < dst_from_src[0, 0] < LARGEST_SCALE:
        raise UserError(
            f"merge.anchor=eyes: src's eyes would be laid on dst's {dst_from_src[0, 0]:.2g} times "
            "as large; merge.anchor=face does without them"
        )
    return enlarged(dst_from_src, factor, dst_eyes.mean(0))
