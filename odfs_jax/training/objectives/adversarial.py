"""The autoencoder, and discriminators that it learns to deceive: sharper faces, late in a run.

Source: Goodfellow et al., "Generative adversarial nets", NeurIPS 2014, with the losses that
DeepFaceLab 2.0 takes; R1 is that of Mescheder, Geiger, Nowozin, "Which training methods for GANs do
actually converge?", ICML 2018.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.data.batches import Batch
from odfs_jax.errors import UserError
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.losses import SwapLoss
from odfs_jax.losses.swap import Target
from odfs_jax.losses.terms import mse
from odfs_jax.nets import PRECISIONS
from odfs_jax.nets.discriminator import CodeDiscriminator, Discriminator, strides_for
from odfs_jax.training.objectives.autoencoder import Autoencoder
from odfs_jax.training.step import Metrics, Step, TrainState

DISCRIMINATORS = ("none", "patch", "unet")
PATCHES = 8  # in a face's width, where `discriminator.patch_size` is null
ROUGHNESS, AROUND = 1e-6, 0.02  # weights of what keeps a masked face calm outside its mask

# (what the autoencoder's loss grows by, what the discriminator minimizes, metrics)
Judgement = tuple[jax.Array, jax.Array, Metrics]


class FaceJudge:
    """Tells src's true faces from rebuilt ones, or new ones, where they count in the loss.

    Of several faces that a network rebuilds of src, as AVATAR does, it sees the last one. With
    `discriminator.of_swap` it sees the new faces instead, inside of their own masks, and what
    deceives it is learned by src's decoder alone: dst's code must go on saying what dst does.
    """

    name = "discriminator"

    def __init__(
        self, config: Mapping[str, Any], specs: Mapping[str, FaceSpec], loss: SwapLoss
    ) -> None:
        """`config` is a `TrainConfig`, `specs` are src's target specs. Raises UserError."""
        own = config["discriminator"]
        if own["name"] not in DISCRIMINATORS:
            expected = ", ".join(DISCRIMINATORS)
            raise UserError(f"discriminator.name={own['name']}: expected one of {expected}")
        *_, (self.judged, self.spec) = specs.items()
        size = self.spec.resolution
        patch_size = max(3, size // PATCHES) if own["patch_size"] is None else own["patch_size"]
        self.patch_size = patch_size
        strides, halvings = strides_for(patch_size), strides_for(patch_size).count(2)
        if size % 2**halvings:
            raise UserError(
                f"discriminator.patch_size={patch_size}: faces of {size} pixels cannot be halved "
                f"{halvings} times; expected a smaller one"
            )
        dtype = PRECISIONS[config["precision"]]
        self.net = Discriminator(strides, own["dims"], own["name"] == "unet", dtype)
        self.power, self.begins, self.r1 = own["power"], own["start"], own["r1"]
        self.loss = loss
        self.of_swap = own["of_swap"]
        self.metrics = ("src_deceived", self.name) + (f"{self.name}/r1",) * bool(self.r1)

    def blank(self) -> jax.Array:
        """What the parameters are initialized with."""
        size = self.spec.resolution
        return jnp.zeros((1, size, size, 1 if self.spec.gray else 3))

    def __call__(
        self, params: dict, targets: Mapping[str, Target], outputs: Mapping[str, Any]
    ) -> Judgement:
        target, made = targets[self.judged], outputs[self.judged][0]
        area = self.loss.area(target["mask"])
        true, fake = target["face"] * area, made * area
        if self.of_swap:
            swap, mask, _ = outputs["decoded_swap"]
            fake = swap * self.loss.area(jnp.round(mask))

        def judge(params: dict, faces: jax.Array) -> list[jax.Array]:
            return self.net.apply({"params": params}, faces)

        deceived = sum(
            nn.softplus(-logits).mean() for logits in judge(jax.lax.stop_gradient(params), fake)
        )
        told_apart = 0.5 * sum(
            nn.softplus(-of_true).mean() + nn.softplus(of_fake).mean()
            for of_true, of_fake in zip(
                judge(params, true), judge(params, jax.lax.stop_gradient(fake)), strict=True
            )
        )
        metrics = {"src_deceived": deceived, self.name: told_apart}
        added = self.power * deceived
        if self.loss.masked:  # nothing else says what is outside
            outside = 1 - area
            of_rim = AROUND * mse(target["face"] * outside, made * outside).mean()
            added += ROUGHNESS * roughness(made).mean() + of_rim
        if self.r1:
            slopes = jax.grad(
                lambda faces: sum(x.mean((1, 2, 3)).sum() for x in judge(params, faces))
            )
            penalty = (slopes(true) ** 2).sum((1, 2, 3)).mean()
            told_apart += self.r1 / 2 * penalty
            metrics |= {f"{self.name}/r1": penalty}
        return added, told_apart, metrics


class CodeJudge:
    """Tells src's codes from dst's: src's become like dst's, of which the new face is made.

    Where a decoder of src's own has learned codes that dst's faces never have, the swap is not what
    training has shown. DeepFaceLab 2.0 calls this true face, and has it for df.
    """

    name, begins = "code_discriminator", 0
    metrics = ("src_code_deceived", name)

    def __init__(self, config: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        """`config` is a `TrainConfig`, `shape` that of one code."""
        self.net = CodeDiscriminator(PRECISIONS[config["precision"]])
        self.power, self.shape = config["loss"]["true_face"], shape

    def blank(self) -> jax.Array:
        """What the parameters are initialized with."""
        return jnp.zeros(self.shape)

    def __call__(
        self, params: dict, targets: Mapping[str, Target], outputs: Mapping[str, Any]
    ) -> Judgement:
        codes = outputs["codes"]

        def judge(params: dict, codes: jax.Array) -> jax.Array:
            return self.net.apply({"params": params}, codes)

        deceived = nn.softplus(-judge(jax.lax.stop_gradient(params), codes["src"])).mean()
        src, dst = (judge(params, jax.lax.stop_gradient(codes[side])) for side in ("src", "dst"))
        told_apart = 0.5 * (nn.softplus(-dst).mean() + nn.softplus(src).mean())
        metrics = dict(zip(self.metrics, (deceived, told_apart), strict=True))
        return self.power * deceived, told_apart, metrics


class Adversarial(Autoencoder):
    """`Autoencoder` and one or two discriminators, each from the iteration `begins` on.

    Until one begins, a step is what it would be without.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.judges: list[FaceJudge | CodeJudge] = []
        if config["discriminator"]["name"] != "none":
            self.judges.append(FaceJudge(config, self.target_specs["src"], self.loss))
        if config["loss"]["true_face"]:
            outputs, _ = jax.eval_shape(
                self.net.init_with_output, jax.random.key(0), *self.net.blank()
            )
            self.judges.append(CodeJudge(config, outputs["codes"]["src"].shape))
        self.nets |= {judge.name: judge.net for judge in self.judges}
        for judge in self.judges:
            self.optimizers[judge.name] = self.optimizer(judge.name, config["optimizer"])
        self.begins = max(judge.begins for judge in self.judges)

    def init_params(self, key: jax.Array) -> dict[str, dict]:
        params = super().init_params(key)
        for judge in self.judges:
            number = 1 + (FaceJudge, CodeJudge).index(type(judge))
            own = jax.random.fold_in(key, number)
            params[judge.name] = judge.net.init(own, judge.blank())["params"]
        return params

    def make_step(self, devices: list[jax.Device]) -> Step:
        with_all = super().make_step(devices)
        if not self.begins:
            return with_all
        before = self.step_of(self.losses_before, devices)
        return StepInTwoParts(before, with_all, self.begins, self.config)

    def losses_before(
        self, params: dict[str, dict], batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ) -> tuple[dict[str, jax.Array], Metrics]:
        """Those without the discriminators that have not begun; the metrics of these are 0."""
        begun = [judge for judge in self.judges if not judge.begins]
        losses, metrics = self.judged(begun, params, batch, keys, step)
        later = (name for judge in self.judges if judge.begins for name in judge.metrics)
        return losses, metrics | dict.fromkeys(later, jnp.float32(0))

    def losses(
        self, params: dict[str, dict], batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ) -> tuple[dict[str, jax.Array], Metrics]:
        return self.judged(self.judges, params, batch, keys, step)

    def judged(
        self,
        judges: Collection[FaceJudge | CodeJudge],
        params: dict[str, dict],
        batch: Batch,
        keys: dict[str, jax.Array],
        step: jax.Array,
    ) -> tuple[dict[str, jax.Array], Metrics]:
        """What `losses` returns, with `judges` only."""
        targets, outputs = self.rebuild(params, batch, keys, step)
        loss, metrics = self.loss(outputs, targets, step)
        losses = {}
        for judge in judges:
            added, losses[judge.name], own = judge(params[judge.name], targets, outputs)
            loss += added
            metrics |= own
        return {self.exported: loss} | losses, metrics


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
