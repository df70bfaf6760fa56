"""Single frames of a clip as conversion makes them, to try merge settings out."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig, OmegaConf

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.auto import AUTO, fitting
from odfs_jax.conversion.convert import find_anchor, load_seeing
from odfs_jax.conversion.merge import (
    Merge,
    Pasting,
    Placement,
    Prediction,
    build_merge,
    program_key,
)
from odfs_jax.conversion.pipeline import FaceMerger
from odfs_jax.conversion.target_faces import TargetFaces, find_target_faces
from odfs_jax.data.faceset import read_eyes
from odfs_jax.data.media.frame_io import FrameReader
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.inference import Params, make_swapper
from odfs_jax.saved_model import load_model

MAX_MERGES = 16  # settings that stay checked
MAX_PROGRAMS = 128  # kinds of settings that stay compiled
MAX_FACES = 64  # faces whose network output is kept


class FramePreviewer:
    """A model that stays loaded, and the frames of dst that it converts.

    The network's output for a face is kept. It is an input of the programs that are compiled for
    new settings, not a part of them, and settings of all kinds share programs: compiling takes most
    of the time.
    """

    def __init__(self, model_dir: Path, clip: Path, aligned: Path) -> None:
        """Loads the model of `model_dir`; `aligned` is the folder of dst's faces in `clip`.

        Raises UserError when the model or the clip cannot be read.
        """
        model = load_model(model_dir)
        self._swapper, self._src_eyes = make_swapper(model.config, model.params), model.src_eyes
        self._network = build_merge(
            self._swapper, OmegaConf.structured(MergeConfig("overlay", mask="both"))
        )
        self._reader = FrameReader(clip)
        self._aligned, self._models = aligned, model_dir.parent
        self._see: Callable[..., jax.Array] | None = None  # of a mask network, once asked for
        # Of the folder `aligned`, by when it last changed: both read all of its faces.
        self._dst_eyes = lru_cache(maxsize=1)(self._read_dst_eyes)
        self._fitting = lru_cache(maxsize=1)(self._find_fitting)
        self._merges: OrderedDict[str, Merge] = OrderedDict()
        self._compiled: set[str] = set()  # kinds of settings
        self._outputs: OrderedDict[str, tuple[jax.Array | None, ...]] = OrderedDict()

    def preview(self, number: int, files: list[Path], config: DictConfig) -> Frame:
        """Frame `number` with the faces in `files` swapped.

        `config` is a `MergeConfig`; `files` are the aligned PNGs of this frame, and of the frames
        before and after it for `motion_blur`. Statistics of colors are those of this frame alone:
        they are not averaged over `color_smoothing` frames. Raises UserError.
        """
        merge = self.check(config)
        near = 1 if merge.needs_motion else 0
        last = min(number + near, self._reader.count - 1)
        numbers = range(max(number - near, 0), last + 1)
        frames = [self._reader.read(one) for one in numbers]
        targets = TargetFaces({})
        if files:
            targets = find_target_faces(self._aligned, self._reader, files=files)
        see = self._seeing() if merge.sees == "network" else None
        merger = FaceMerger(self._swapper, merge, batch_size=1, see=see)
        with closing(merger.frames((frame for frame in frames), targets)) as merged:
            return next(islice(merged, numbers.index(number), None))

    def check(self, config: DictConfig) -> Merge:
        """The merge with the settings `config`.

        Raises UserError for a setting out of range, or where dst has no folder of faces.
        """
        if not self._aligned.is_dir():
            raise UserError(f"{self._aligned}: no such folder; run: python extract.py data=dst")
        changed = self._aligned.stat().st_mtime_ns
        if AUTO in (config.color, config.mask):
            fit = self._fitting(changed)
            auto = {key: value for key, value in fit.items() if config[key] == AUTO}
            config = OmegaConf.merge(config, auto)
        changed = changed if config.anchor == "eyes" else 0
        key = f"{changed} {OmegaConf.to_yaml(config)}"
        if key not in self._merges:
            self._merges[key] = self._build(config, changed)
        return _get(self._merges, key, MAX_MERGES)

    def _read_dst_eyes(self, _changed: int) -> np.ndarray:
        return read_eyes(self._aligned, "dst", self._swapper.output_spec.face_type)

    def _build(self, config: DictConfig, changed: int) -> Merge:
        read_dst_eyes = partial(self._dst_eyes, changed)
        dst_from_src = find_anchor(config, self._src_eyes, read_dst_eyes, self._swapper)
        # Its "parameters" are the network's output.
        swapper = replace(self._swapper, predict=lambda outputs, _faces: outputs)
        merge = build_merge(swapper, config, dst_from_src, whole=False)
        self._compiled.add(program_key(swapper, config, dst_from_src))
        if len(self._compiled) > MAX_PROGRAMS:
            Pasting.paste.clear_cache()
            self._compiled.clear()
        return replace(merge, predict=self._with_kept_outputs(merge.predict), smoothing=0)

    def _seeing(self) -> Callable[..., jax.Array]:
        """What the only mask network beside the model sees. Raises UserError."""
        if self._see is None:
            self._see = load_seeing(self._models, None, "float32", self._swapper.output_spec)
        return self._see

    def _find_fitting(self, _changed: int) -> dict[str, str]:
        """What each `auto` of a merge stands for."""
        targets = find_target_faces(self._aligned, self._reader)
        found = fitting(self._swapper, self._reader.path, targets.sources)
        return {key: value for key, (value, _) in found.items()}

    def _with_kept_outputs(self, predict: Callable[..., Prediction]) -> Callable[..., Prediction]:
        """`predict` of the model's parameters, made of one that takes the network's output."""

        def predict_face(params: Params, regions: Any, placement: Placement) -> Prediction:
            content = hashlib.sha256(regions.tobytes() + placement.model_from_region.tobytes())
            key = f"{regions.shape} {content.hexdigest()}"
            if key not in self._outputs:
                plain = Placement(placement.model_from_region, None, None)
                prediction = self._network.predict(params, regions, plain)
                self._outputs[key] = (prediction.faces, prediction.masks, prediction.dst_masks)
            return predict(_get(self._outputs, key, MAX_FACES), regions, placement)

        return predict_face


def _get(cache: OrderedDict[str, Any], key: str, size: int) -> Any:
    """`cache[key]`, marked as used last; drops the entries unused for longest beyond `size`."""
    cache.move_to_end(key)
    while len(cache) > size:
        cache.popitem(last=False)
    return cache[key]
