"""The optimiser and its learning-rate schedule, from the settings."""

from collections.abc import Mapping
from typing import Any

import optax

from odfs_jax.errors import UserError


def make_optimizer(config: Mapping[str, Any], iterations: int) -> optax.GradientTransformation:
    """The optimiser of an `OptimizerConfig`. Raises UserError naming the key that does not fit."""
    if config["name"] != "adam":
        raise UserError(f"optimizer.name={config['name']}: expected adam")
    limit = config["clip_norm"]
    return optax.chain(
        optax.identity() if limit is None else optax.clip_by_global_norm(limit),
        optax.adam(_schedule(config, iterations), b1=config["b1"], b2=config["b2"]),
    )


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
