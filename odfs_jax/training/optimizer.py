"""The optimiser and its learning-rate schedule, from the settings."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from odfs_jax.errors import UserError
from odfs_jax.training.moments import kept_in_bfloat16


def _adam(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adam(rate, b1=_off_half(config["b1"]), b2=config["b2"])


def _adabelief(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adabelief(rate, b1=_off_half(config["b1"]), b2=config["b2"])


def _adafactor(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    momentum = config["b1"] or None  # null: none is kept at all
    return optax.adafactor(rate, multiply_by_parameter_scale=False, momentum=momentum)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": _adam,
    "adabelief": _adabelief,
    "adafactor": _adafactor,
}
MOMENTS = ("float32", "bfloat16")


def make_optimizer(config: Mapping[str, Any], iterations: int) -> optax.GradientTransformation:
    """The optimiser of an `OptimizerConfig`. Raises UserError naming the key that does not fit."""
    for key, choices in (("name", OPTIMIZERS), ("moments", MOMENTS)):
        if config[key] not in choices:
            expected = ", ".join(choices)
            raise UserError(f"optimizer.{key}={config[key]}: expected one of {expected}")
    tx = OPTIMIZERS[config["name"]](config, _schedule(config, iterations))
    if config["moments"] == "bfloat16":
        tx = kept_in_bfloat16(tx)
    limit = config["clip_norm"]
    clip = optax.identity() if limit is None else optax.clip_by_global_norm(limit)
    return _promoting(optax.chain(clip, tx))


def _off_half(b1: float) -> float:
    """`b1`, but the float32 below 0.5 for 0.5 itself.

    With b1 = 1 - b1 XLA takes the factor out of the running mean; then, on a CPU, it computes that
    mean twice over, and keeps a copy of the old ones meanwhile: 0.2 of DF's 3.0 GB.
    """
    return float(np.nextafter(np.float32(b1), np.float32(0))) if b1 == 0.5 else b1


def _promoting(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx` under JAX's usual promotion of types: optax raises floats to integer powers."""

    def update(*args: Any) -> tuple[optax.Updates, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(*args)

    return optax.GradientTransformation(tx.init, update)


def _schedule(config: Mapping[str, Any], iterations: int) -> optax.Schedule:
    rate, warmup = config["learning_rate"], config["warmup"]
    if config["schedule"] == "constant":
        return optax.join_schedules(
            [optax.linear_schedule(0.0, rate, max(1, warmup)), optax.constant_schedule(rate)],
            [warmup],
        )
    if config["schedule"] != "cosine":
        raise UserError(f"optimizer.schedule={config['schedule']}: expected constant or cosine")
    if iterations <= warmup:
        raise UserError(
            f"optimizer.schedule=cosine ends at the target iteration: expected iterations above "
            f"optimizer.warmup={warmup}, found iterations={iterations}"
        )
    return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, iterations)
