"""The training loss of a swap network: face and mask terms of both people.

Source: docs/reference_2018.md section 8.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from odfs_jax.errors import UserError
from odfs_jax.losses.dssim import dssim
from odfs_jax.losses.ms_ssim import ms_dssim
from odfs_jax.losses.pixel import mae, mae_inside, mse

# (face [N,H,W,C], mask [N,H,W,1]); a target's mask has a second channel, eyes and mouth, where
# loss.eyes_mouth asks for it.
Pair = tuple[jax.Array, jax.Array]
PairLoss = Callable[[jax.Array, jax.Array], jax.Array]

FACE_LOSSES: dict[str, PairLoss] = {"dssim": dssim, "ms_ssim": ms_dssim, "mae": mae, "mse": mse}
MASK_LOSSES: dict[str, PairLoss] = {"mae": mae, "mse": mse}


def make_loss(
    config: Mapping[str, Any],
) -> Callable[[Mapping[str, Pair], Mapping[str, Pair]], tuple[jax.Array, dict[str, jax.Array]]]:
    """loss(outputs, targets) -> (scalar, metrics) of a `LossConfig`. Raises UserError.

    `outputs` and `targets` hold a (face, mask) pair for each output that the network declares, most
    often "src" and "dst". Every term is a mean over the batch, so that the mean over devices is the
    loss of the whole batch. `metrics` holds the terms of each output: its face terms together, as
    weighted, the others unweighted.
    """
    face_terms = _face_terms(config["face"])
    _check(config)
    mask_loss = MASK_LOSSES[config["mask"]]

    def pair_loss(output: Pair, target: Pair) -> tuple[jax.Array, dict[str, jax.Array]]:
        face, mask = output
        true_face, true_mask = target[0], target[1][..., :1]
        inside = (
            dilate(true_mask, config["margin"]) if config["masked"] else jnp.ones_like(true_mask)
        )
        seen = true_face * inside, face * inside
        terms = {
            "face": sum(weight * term(*seen).mean() for term, weight in face_terms),
            "mask": mask_loss(true_mask, mask).mean(),
        }
        total = terms["face"] + config["mask_weight"] * terms["mask"]
        if config["eyes_mouth"]:
            terms["eyes_mouth"] = mae_inside(true_face, face, target[1][..., 1:]).mean()
            total += config["eyes_mouth"] * terms["eyes_mouth"]
        return total, terms

    def loss(outputs, targets):
        total, metrics = 0.0, {}
        for output in sorted(targets):
            part, terms = pair_loss(outputs[output], targets[output])
            total += part
            metrics |= {f"{output}_{name}": term for name, term in terms.items()}
        return total, metrics

    return loss


def dilate(masks: jax.Array, margin: float) -> jax.Array:
    """`masks` [N, H, W, 1], grown to all sides by `margin` of the width."""
    reach = 2 * round(margin * masks.shape[2]) + 1
    for window in ((1, reach, 1, 1), (1, 1, reach, 1)):
        masks = jax.lax.reduce_window(masks, -jnp.inf, jax.lax.max, window, (1, 1, 1, 1), "SAME")
    return masks


def _check(config: Mapping[str, Any]) -> None:
    if config["mask"] not in MASK_LOSSES:
        expected = ", ".join(MASK_LOSSES)
        raise UserError(f"loss.mask={config['mask']}: expected one of {expected}")
    for name in ("mask_weight", "eyes_mouth"):
        _check_weight(name, config[name])
    if not 0 <= config["margin"] <= 0.5:
        raise UserError(f"loss.margin={config['margin']}: expected a share of the width, 0 .. 0.5")


def _face_terms(weights: Mapping[str, float]) -> list[tuple[PairLoss, float]]:
    for name, weight in weights.items():
        _check_weight(f"face.{name}", weight)
    terms = [(FACE_LOSSES[name], weight) for name, weight in weights.items() if weight]
    if not terms:
        names = ", ".join(f"loss.face.{name}" for name in FACE_LOSSES)
        raise UserError(f"loss.face: all weights are 0, expected one above: {names}")
    return terms


def _check_weight(name: str, weight: float) -> None:
    if weight < 0:
        raise UserError(f"loss.{name}={weight}: expected a weight of 0 or more")
