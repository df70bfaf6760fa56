"""The training loss of a swap network: face and mask terms of both people. Spec section 8."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from odfs_jax.errors import UserError
from odfs_jax.losses.dssim import dssim
from odfs_jax.losses.pixel import mae, mse

Pair = tuple[jax.Array, jax.Array]  # (face [N,H,W,3], mask [N,H,W,1])
PairLoss = Callable[[jax.Array, jax.Array], jax.Array]

FACE_LOSSES: dict[str, PairLoss] = {"dssim": dssim}
MASK_LOSSES: dict[str, PairLoss] = {"mae": mae, "mse": mse}


def make_loss(
    config: Mapping[str, Any],
) -> Callable[[Mapping[str, Pair], Mapping[str, Pair]], tuple[jax.Array, dict[str, jax.Array]]]:
    """loss(outputs, targets) -> (scalar, metrics) of a `LossConfig`. Raises UserError.

    `outputs` and `targets` hold a (face, mask) pair for "src" and for "dst"; the face term sees
    both faces times the target's mask. Every term is a mean over the batch, so that the mean over
    devices is the loss of the whole batch. `metrics` holds each term, unweighted.
    """
    face_loss = _chosen("face", config["face"], FACE_LOSSES)
    mask_loss = _chosen("mask", config["mask"], MASK_LOSSES)

    def loss(outputs, targets):
        total, metrics = 0.0, {}
        for side in ("src", "dst"):
            (face, mask), (true_face, true_mask) = outputs[side], targets[side]
            face_term = face_loss(true_face * true_mask, face * true_mask).mean()
            mask_term = mask_loss(true_mask, mask).mean()
            total += config["face_weight"] * face_term + config["mask_weight"] * mask_term
            metrics |= {f"{side}_face": face_term, f"{side}_mask": mask_term}
        return total, metrics

    return loss


def _chosen(term: str, name: str, choices: Mapping[str, PairLoss]) -> PairLoss:
    if name not in choices:
        raise UserError(f"loss.{term}={name}: expected one of {', '.join(choices)}")
    return choices[name]
