"""Single frames of a clip as conversion makes them, for somebody who tries settings out."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig, OmegaConf

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.convert import find_placement
from odfs_jax.conversion.merge import Merge, Places, Predicted, build_merge
from odfs_jax.conversion.pipeline import FaceMerger
from odfs_jax.conversion.target_faces import TargetFaces, find_target_faces
from odfs_jax.data.media.frame_io import FrameReader
from odfs_jax.inference import Params, make_swapper
from odfs_jax.training.checkpoint import load_for_inference

KEPT_MERGES = 16  # settings whose programs stay compiled
KEPT_FACES = 64  # what the network made of as many


class FramePreviewer:
    """A model that stays loaded, and the frames of dst. Raises UserError.

    What the network makes of a face is kept, and is no part of the programs that are compiled for
    new settings: these take most of the time.
    """

    def __init__(self, model_dir: Path, clip: Path, aligned: Path) -> None:
        model, params, self._src_eyes = load_for_inference(model_dir)
        self._swapper = make_swapper(model, params)
        self._network = build_merge(self._swapper, OmegaConf.structured(MergeConfig("overlay")))
        self._reader = FrameReader(clip)
        self._aligned = aligned
        self._merges: OrderedDict[str, Merge] = OrderedDict()
        self._faces: OrderedDict[str, tuple[jax.Array, jax.Array]] = OrderedDict()

    def merged(self, number: int, files: list[Path], config: DictConfig) -> np.ndarray:
        """Frame `number`, uint8 RGB [H, W, 3], with the faces in `files` swapped.

        `config` is a `MergeConfig`; `files` are the aligned PNGs of this frame, and of its
        neighbours for `motion_blur`. Colours are those of this frame alone: they are not averaged
        over `color_smoothing` frames.
        """
        merge = self.check(config)
        reach = 1 if merge.moved else 0
        last = min(number + reach, self._reader.count - 1)
        numbers = range(max(number - reach, 0), last + 1)
        frames = [self._reader.read(one) for one in numbers]
        targets = (
            find_target_faces(self._aligned, self._reader, files=files)
            if files
            else TargetFaces({})
        )
        merger = FaceMerger(self._swapper, merge, batch_size=1)
        merged = list(merger.frames((frame for frame in frames), targets))
        return merged[numbers.index(number)].image

    def check(self, config: DictConfig) -> Merge:
        """The merge that `config` asks for. Raises UserError for what it may not be."""
        seen = self._aligned.stat().st_mtime_ns if config.anchor == "eyes" else 0
        key = f"{seen} {OmegaConf.to_yaml(config)}"
        if key not in self._merges:
            self._merges[key] = self._build(config)
        return _kept(self._merges, key, KEPT_MERGES)

    def _build(self, config: DictConfig) -> Merge:
        placement = find_placement(config.anchor, self._src_eyes, self._aligned, self._swapper)
        given = replace(self._swapper, predict=lambda outputs, _seen: outputs)
        merge = build_merge(given, config, placement)
        return replace(merge, predict=self._with_kept_faces(merge.predict), smoothing=0)

    def _with_kept_faces(self, predict: Callable[..., Predicted]) -> Callable[..., Predicted]:
        """`Merge.predict` with the network's faces, which `predict` takes in place of `params`."""

        def kept(params: Params, regions: Any, places: Places) -> Predicted:
            content = hashlib.sha256(regions.tobytes() + places.matrices.tobytes())
            key = f"{regions.shape} {content.hexdigest()}"
            if key not in self._faces:
                made = self._network.predict(params, regions, Places(places.matrices, None, None))
                self._faces[key] = (made.faces, made.masks)
            return predict(_kept(self._faces, key, KEPT_FACES), regions, places)

        return kept


def _kept(cache: OrderedDict[str, Any], key: str, most: int) -> Any:
    """cache[key], which is the last to be dropped of the `most` that stay."""
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)
    return cache[key]
