"""A mask network: which part of a picture is face, and nothing lies before it.

It needs no labels. The hull of a face's points is known, and so is where a program lays a hand or
a scarf before it (`data/occluders.py`). Where a face has a mask of its own, drawn or stored, that
counts in place of the hull.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data import augment
from odfs_jax.data.batches import Batch
from odfs_jax.data.occluders import lay_over
from odfs_jax.errors import UserError
from odfs_jax.faces.warp import largest, map_in_groups
from odfs_jax.nets import build_mask_net, with_precision
from odfs_jax.nets.masks import MaskNet
from odfs_jax.saved_model import MASK_NET
from odfs_jax.training.objectives.base import Objective, Samples
from odfs_jax.training.step import Metrics

OBJECT_DRAWS = 5  # folded into a sample's key, which its augmentation splits, for the objects
AT_ONCE = 8  # measured faces, through the network
MASK = "mask"
TOLERANCE = 0.008  # of a picture's diagonal: how far off an outline may be (Perazzi et al. 2016)


class Segmentation(Objective):
    """One mask network that learns from the faces of src, of dst or of both."""

    exported = MASK_NET

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises UserError naming the key that does not fit."""
        self.config = dict(config)
        self.check_run()
        if config["discriminator"]["name"] != "none":
            raise UserError("discriminator.name: a mask network has none")
        net = with_precision(build_mask_net(config["model"]), config["precision"])
        self.nets = {self.exported: net}
        self.optimizers = {self.exported: self.optimizer(self.exported, config["optimizer"])}
        self.input_specs = {side: net.face_spec for side in config["data"]["sides"]}
        self.target_specs = {side: {side: net.face_spec} for side in self.input_specs}
        self.masks = (MASK,)

    @property
    def net(self) -> MaskNet:
        """The mask network."""
        return self.nets[self.exported]

    def init_params(self, key: jax.Array) -> dict[str, dict]:
        return {self.exported: self.net.init(key, *self.net.blank())["params"]}

    def sample(self, batch: Batch, keys: dict[str, jax.Array], step: jax.Array) -> Samples:
        """Faces with objects before them; image and mask are warped together."""
        augment_cfg = augment.at(self.config["augment"], step)
        probability = self.config["objective"]["objects"]
        samples = {}
        for side, (images, matrices) in batch.items():
            spec, cfg = self.input_specs[side], augment.of_side(augment_cfg, side)

            def with_mask(key, image, matrix, spec=spec, cfg=cfg):
                return augment.sample_with_mask(key, image, matrix, spec=spec, augment_cfg=cfg)

            def covered(key, face, mask, other, spec=spec):
                return lay_over(key, face, mask, other, spec, probability)

            faces, masks = map_in_groups(jax.vmap(with_mask), 1, keys[side], images, matrices)
            own = jax.vmap(jax.random.fold_in, (0, None))(keys[side], OBJECT_DRAWS)
            # The other one of each pair, whose place does not depend on the number of devices.
            places = jnp.arange(len(faces))
            others = faces[jnp.minimum(places ^ 1, len(faces) - 1)]
            faces, masks = map_in_groups(jax.vmap(covered), 1, own, faces, masks, others)
            samples[side] = (faces, {side: {"face": faces, MASK: masks}})
        return samples

    def losses(
        self, params: dict[str, dict], batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ) -> tuple[dict[str, jax.Array], Metrics]:
        samples = self.sample(batch, keys, step)
        faces = jnp.concatenate([faces for faces, _ in samples.values()])
        masks = jnp.concatenate([targets[side][MASK] for side, (_, targets) in samples.items()])
        logits = self.net.apply({"params": params[self.exported]}, faces)
        loss = cross_entropy(logits, masks).mean()
        return {self.exported: loss}, {MASK: loss}

    def make_measure(self) -> Callable[[dict[str, dict]], Metrics] | None:
        """IoU and boundary F-score of held-out faces with the same objects before them each time.

        None where no face is held out.
        """
        device = jax.local_devices()[0]
        batch = self.measured_batch()
        if batch is None:
            return None
        key, step = jax.random.key(self.config["seed"]), jnp.int32(np.iinfo(np.int32).max)
        keys = {
            side: jax.random.split(jax.random.fold_in(key, i), len(images))
            for i, (side, (images, _)) in enumerate(batch.items())
        }
        drawn = jax.jit(self.sample)(*jax.device_put((batch, keys, step), device))
        faces = jnp.concatenate([faces for faces, _ in drawn.values()])
        masks = jnp.concatenate([targets[side][MASK] for side, (_, targets) in drawn.items()])

        @jax.jit
        def measure(params: dict, faces: jax.Array, masks: jax.Array) -> Metrics:
            def find(face: jax.Array) -> jax.Array:
                return jax.nn.sigmoid(self.net.apply({"params": params}, face[None]))[0]

            found = jax.lax.map(find, faces, batch_size=min(AT_ONCE, len(faces)))
            scores = {"iou": iou(found, masks), "boundary": boundary_score(found, masks)}
            return {name: score.mean() for name, score in scores.items()}

        return lambda params: measure(jax.device_put(params[self.exported], device), faces, masks)

    def preview(self, params: dict[str, dict], inputs: dict[str, jax.Array]) -> list[jax.Array]:
        """For each person the face, its mask, and what of the face is seen."""
        columns = []
        for faces in inputs.values():
            found = jax.nn.sigmoid(self.net.apply({"params": params[self.exported]}, faces))
            columns += [faces, found, faces * found]
        return columns

    def captions(self) -> list[str]:
        return [caption for s in self.sides for caption in (s, f"{s} mask", f"{s} seen")]

    def metadata(self) -> dict[str, Any]:
        return {}


def cross_entropy(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """Binary cross-entropy of each mask, [N], in nats a pixel.

    `logits`, before the sigmoid, and `masks` in [0, 1], 1 on the face, are [N, H, W, 1].
    """
    per_pixel = jnp.maximum(logits, 0) - logits * masks + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return per_pixel.mean((1, 2, 3))


def iou(found: jax.Array, masks: jax.Array) -> jax.Array:
    """Intersection over union of each pair of masks [N, H, W, 1] in [0, 1]: [N].

    Both are cut at a half; 1 where both are empty.
    """
    found, masks = found > 0.5, masks > 0.5
    both, either = (area.sum((1, 2, 3)) for area in (found & masks, found | masks))
    return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0)


def boundary_score(found: jax.Array, masks: jax.Array) -> jax.Array:
    """F-score of the outlines of each pair of masks [N, H, W, 1] in [0, 1]: [N].

    Both are cut at a half; 1 where both are empty. A pixel of one outline counts where the other
    has one within TOLERANCE, in a square. Source: Perazzi et al., "A benchmark dataset and
    evaluation methodology for video object segmentation", CVPR 2016.
    """
    reach = max(1, round(TOLERANCE * (masks.shape[1] ** 2 + masks.shape[2] ** 2) ** 0.5))
    edges = [_outline((area > 0.5).astype(jnp.float32)) for area in (found, masks)]
    shares = []
    for own, other in (edges, edges[::-1]):
        hit = (own * largest(other, 2 * reach + 1)).sum((1, 2, 3))
        count = own.sum((1, 2, 3))
        shares.append(jnp.where(count > 0, hit / jnp.maximum(count, 1), 0.0))
    empty = (edges[0] + edges[1]).sum((1, 2, 3)) == 0
    precision, recall = shares
    score = 2 * precision * recall / jnp.maximum(precision + recall, 1e-9)
    return jnp.where(empty, 1.0, score)


def _outline(area: jax.Array) -> jax.Array:
    """The pixels of `area` that have one beside them which is not of it."""
    return area * (1 - jnp.minimum(area, 1 - largest(1 - area, 3)))
