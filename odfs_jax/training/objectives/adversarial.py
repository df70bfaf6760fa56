"""The autoencoder, and a discriminator that it learns to deceive: sharper faces, late in a run.

Source: Goodfellow et al., "Generative adversarial nets", NeurIPS 2014, with the losses that
DeepFaceLab 2.0 takes; R1 is that of Mescheder, Geiger, Nowozin, "Which training methods for GANs do
actually converge?", ICML 2018.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.data.batches import Batch
from odfs_jax.errors import UserError
from odfs_jax.losses.terms import mse
from odfs_jax.nets import PRECISIONS
from odfs_jax.nets.discriminator import Discriminator, strides_for
from odfs_jax.training.objectives.autoencoder import Autoencoder
from odfs_jax.training.step import Metrics, Step, TrainState

DISCRIMINATORS = ("none", "patch", "unet")
PATCHES = 8  # in a face's width, where `discriminator.patch_size` is null
ROUGHNESS, AROUND = 1e-6, 0.02  # weights of what keeps a masked face calm outside its mask
NAME = "discriminator"


class Adversarial(Autoencoder):
    """`Autoencoder`, and a discriminator of src's rebuilt face from iteration `start` on.

    The face is the largest one that the network rebuilds of src, where it counts in the loss. Until
    the discriminator begins, a step is that of `Autoencoder`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        own = config[NAME]
        if own["name"] not in DISCRIMINATORS:
            expected = ", ".join(DISCRIMINATORS)
            raise UserError(f"discriminator.name={own['name']}: expected one of {expected}")
        # Of AVATAR's two the second one.
        *_, (self.judged, self.spec) = self.target_specs["src"].items()
        size = self.spec.resolution
        patch_size = max(3, size // PATCHES) if own["patch_size"] is None else own["patch_size"]
        strides, halvings = strides_for(patch_size), strides_for(patch_size).count(2)
        if size % 2**halvings:
            raise UserError(
                f"discriminator.patch_size={patch_size}: faces of {size} pixels cannot be halved "
                f"{halvings} times; expected a smaller one"
            )
        dtype = PRECISIONS[config["precision"]]
        net = Discriminator(strides, own["dims"], own["name"] == "unet", dtype)
        self.nets |= {NAME: net}
        self.optimizers |= {NAME: self.optimizer(NAME, config["optimizer"])}
        self.power, self.begins, self.r1 = own["power"], own["start"], own["r1"]

    def init_params(self, key: jax.Array) -> dict[str, dict]:
        size, channels = self.spec.resolution, 1 if self.spec.gray else 3
        blank = jnp.zeros((1, size, size, channels))
        params = self.nets[NAME].init(jax.random.fold_in(key, 1), blank)["params"]
        return super().init_params(key) | {NAME: params}

    def make_step(self, devices: list[jax.Device]) -> Step:
        with_discriminator = super().make_step(devices)
        if not self.begins:
            return with_discriminator
        without = self.step_of(self.losses_before, devices)
        return StepInTwoParts(without, with_discriminator, self.begins, self.config)

    def losses_before(
        self, params: dict[str, dict], batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ) -> tuple[dict[str, jax.Array], Metrics]:
        """Those of `Autoencoder`; the discriminator's metrics are 0."""
        losses, metrics = super().losses(params, batch, keys, step)
        own = ("src_deceived", NAME) + (f"{NAME}/r1",) * bool(self.r1)
        return losses, metrics | dict.fromkeys(own, jnp.float32(0))

    def losses(
        self, params: dict[str, dict], batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ) -> tuple[dict[str, jax.Array], Metrics]:
        targets, outputs = self.rebuild(params, batch, keys, step)
        loss, metrics = self.loss(outputs, targets, step)

        target, made = targets[self.judged], outputs[self.judged][0]
        area = self.loss.area(target["mask"])
        true, fake = target["face"] * area, made * area

        def judge(params: dict, faces: jax.Array) -> list[jax.Array]:
            return self.nets[NAME].apply({"params": params}, faces)

        own = params[NAME]
        deceived = sum(
            nn.softplus(-logits).mean() for logits in judge(jax.lax.stop_gradient(own), fake)
        )
        told_apart = 0.5 * sum(
            nn.softplus(-of_true).mean() + nn.softplus(of_fake).mean()
            for of_true, of_fake in zip(
                judge(own, true), judge(own, jax.lax.stop_gradient(fake)), strict=True
            )
        )
        metrics |= {"src_deceived": deceived, NAME: told_apart}
        if self.loss.masked:  # nothing else says what is outside
            outside = 1 - area
            of_rim = AROUND * mse(target["face"] * outside, made * outside).mean()
            loss += ROUGHNESS * roughness(made).mean() + of_rim
        if self.r1:
            slopes = jax.grad(lambda faces: sum(x.mean((1, 2, 3)).sum() for x in judge(own, faces)))
            penalty = (slopes(true) ** 2).sum((1, 2, 3)).mean()
            told_apart += self.r1 / 2 * penalty
            metrics |= {f"{NAME}/r1": penalty}
        return {self.exported: loss + self.power * deceived, NAME: told_apart}, metrics


class StepInTwoParts:
    """A step that is `before` until iteration `begins` is among those of a call, then `after`.

    The first call asks the state for its iteration; it waits for nothing, since no step runs.
    """

    def __init__(self, before: Step, after: Step, begins: int, config: Mapping[str, Any]) -> None:
        self.before, self.after, self.begins = before, after, begins
        self.steps, self.number = config["steps_per_dispatch"], None

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        number = int(state.step) if self.number is None else self.number
        self.number = number + self.steps
        step = self.after if self.number > self.begins else self.before
        return step(state, batch)

    @property
    def lower(self) -> Callable:
        """That of the step which takes more memory."""
        return self.after.lower


def roughness(faces: jax.Array) -> jax.Array:
    """Sum of squared differences of neighbors, of each of `faces` [N, H, W, C]: [N]."""
    along = (jnp.diff(faces, axis=axis) ** 2 for axis in (1, 2))
    return sum(part.sum((1, 2, 3)) for part in along)
