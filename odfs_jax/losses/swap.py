"""What a swap network minimizes: terms of the face and of its mask, for every picture it gives.

Source: docs/reference_2018.md section 8.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from odfs_jax.errors import UserError
from odfs_jax.losses.terms import (
    FACE_LOSSES,
    MASK_LOSSES,
    dilate,
    light_distance,
    mae_inside,
    mse,
    scaled_dssim,
    soft,
    style_distance,
)

Output = tuple[jax.Array, ...]  # (face [N,H,W,C], mask [N,H,W,1]) of the network
# "face" [N,H,W,C] and masks [N,H,W,1]: "mask", of the whole face, and "eyes_mouth" where it is read
Target = dict[str, jax.Array]
# What is compared, of a target or of an output: "face", "mask", "eyes_mouth" (targets only), and
# "counted", the face where it counts and black elsewhere.
Pictures = dict[str, jax.Array]
Term = Callable[[Pictures, Pictures], jax.Array]  # (of the target, of the output) -> [N]
Weight = float | Callable[[jax.Array], jax.Array]  # or a function of the iteration


@dataclass(frozen=True, eq=False)  # jax.jit wants a hash of what it compiles
class SwapLoss:
    """A weighted sum of named terms.

    The face counts inside the mask grown by `margin` (a share of the width), with `soft` its edge
    faded inwards, or everywhere where it is not `masked`. Terms named "face/..." make up the sum
    "face" of the log line.
    """

    terms: dict[str, tuple[Weight, Term]]
    masks: tuple[str, ...]  # that the terms read of a target, by name
    masked: bool
    margin: float
    soft: bool = False
    face_style: float = 0.0
    background_style: float = 0.0
    light: float = 0.0

    @property
    def of_swap(self) -> bool:
        """True when the new face itself counts, and not only what is rebuilt."""
        return bool(self.face_style or self.background_style or self.light)

    def area(self, mask: jax.Array) -> jax.Array:
        """Where the face counts, [N, H, W, 1] in [0, 1], of its true `mask`, likewise."""
        if not self.masked:
            return jnp.ones_like(mask)
        area = dilate(mask, self.margin)
        return soft(area) if self.soft else area

    def __call__(
        self, outputs: Mapping[str, Output], targets: Mapping[str, Target], step: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(loss, metrics) of a batch at iteration `step`; float32 scalars.

        `outputs` and `targets` have an entry for each picture that the network declares, most often
        "src" and "dst". Every term is a mean over the batch, so that the mean over devices is the
        loss of the whole batch. The metrics of the output "src" are "src_face", the weighted sum of
        its face terms, and unweighted every term: "src_mask", "src_eyes_mouth", "src_face/dssim".

        Where `of_swap`, `outputs` also has "swap" and "decoded_swap", the new face (face, mask,
        dst's mask), of which the second one moves decoders only; metrics are then "swap_style",
        "swap_background" and "swap_light".
        """
        loss, metrics = 0.0, {}
        for name in sorted(targets):
            part, terms = self._of_picture(outputs[name], targets[name], step)
            loss += part
            metrics |= {f"{name}_{term}": value for term, value in terms.items()}
        if self.face_style:
            metrics["swap_style"] = self._style(outputs["decoded_swap"], outputs["dst"])
            loss += self.face_style * metrics["swap_style"]
        if self.background_style:
            metrics["swap_background"] = self._background(outputs["swap"], targets["dst"])
            loss += self.background_style * metrics["swap_background"]
        if self.light:
            metrics["swap_light"] = self._light(outputs["decoded_swap"], targets["dst"])
            loss += self.light * metrics["swap_light"]
        return loss, metrics

    def _light(self, swap: Output, dst: Target) -> jax.Array:
        """How differently the light lies on the new face and on dst's."""
        face, _, _ = swap
        return light_distance(face, dst["face"], dst["mask"], dst["eyes_mouth"]).mean()

    def _style(self, swap: Output, dst: Output) -> jax.Array:
        """How far the new face's colors are from those of dst's own, as it is rebuilt."""
        face, mask, _ = swap
        wanted, wanted_mask = dst
        wanted = jax.lax.stop_gradient(wanted * wanted_mask)
        return style_distance(face * jax.lax.stop_gradient(mask), wanted).mean()

    def _background(self, swap: Output, dst: Target) -> jax.Array:
        """How far the new face is from dst's picture, outside what both masks say is face."""
        face, mask, dst_mask = swap
        outside = 1 - jax.lax.stop_gradient(soft(mask * dst_mask))
        pair = dst["face"] * outside, face * outside
        return (scaled_dssim(*pair) + mse(*pair)).mean()

    def _of_picture(
        self, output: Output, target: Target, step: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        (face, mask), true_mask = output, target["mask"]
        area = self.area(true_mask)
        wanted = target | {"counted": target["face"] * area}
        given = {"face": face, "mask": mask, "counted": face * area}
        of_face, of_rest, metrics = 0.0, [], {}
        for name, (weight, term) in self.terms.items():
            value = term(wanted, given).mean()
            weighted = (weight(step) if callable(weight) else weight) * value
            metrics[name] = value
            if name.startswith("face/"):
                of_face += weighted
            else:
                of_rest.append(weighted)
        return sum(of_rest, of_face), {"face": of_face} | metrics


def make_loss(config: Mapping[str, Any]) -> SwapLoss:
    """The loss of a `LossConfig`. Raises UserError naming the key that does not fit."""
    terms = _face_terms(config["face"], scaled=config["scaled_window"])
    if config["mask"] not in MASK_LOSSES:
        expected = ", ".join(MASK_LOSSES)
        raise UserError(f"loss.mask={config['mask']}: expected one of {expected}")
    for name in ("mask_weight", "eyes_mouth", "face_style", "background_style", "light"):
        _check_weight(name, config[name])
    if not 0 <= config["margin"] <= 0.5:
        raise UserError(f"loss.margin={config['margin']}: expected a share of the width, 0 .. 0.5")
    masks, mask_loss = ("mask",), MASK_LOSSES[config["mask"]]
    terms["mask"] = (
        config["mask_weight"],
        lambda target, output: mask_loss(target["mask"], output["mask"]),
    )
    if config["eyes_mouth"] or config["light"]:
        masks += ("eyes_mouth",)
    if config["eyes_mouth"]:
        terms["eyes_mouth"] = (
            config["eyes_mouth"],
            lambda target, output: mae_inside(target["face"], output["face"], target["eyes_mouth"]),
        )
    area = config["masked"], config["margin"], config["soft_mask"]
    styles = config["face_style"], config["background_style"], config["light"]
    return SwapLoss(terms, masks, *area, *styles)


def _face_terms(weights: Mapping[str, float], scaled: bool) -> dict[str, tuple[Weight, Term]]:
    losses = FACE_LOSSES | {"dssim": scaled_dssim} if scaled else FACE_LOSSES
    for name, weight in weights.items():
        _check_weight(f"face.{name}", weight)

    def term(name: str) -> Term:
        loss = losses[name]
        return lambda target, output: loss(target["counted"], output["counted"])

    terms = {f"face/{name}": (weight, term(name)) for name, weight in weights.items() if weight}
    if not terms:
        names = ", ".join(f"loss.face.{name}" for name in FACE_LOSSES)
        raise UserError(f"loss.face: all weights are 0, expected one above: {names}")
    return terms


def _check_weight(name: str, weight: float) -> None:
    if weight < 0:
        raise UserError(f"loss.{name}={weight}: expected a weight of 0 or more")
