"""Optimizers and learning-rate schedules from the settings; moments kept in half the memory."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from odfs_jax.errors import UserError


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
DROPPED_BITS = 16  # low bits of a float32 that a bfloat16 does not have


def make_optimizer(config: Mapping[str, Any], iterations: int) -> optax.GradientTransformation:
    """The optimizer of an `OptimizerConfig`. Raises UserError naming the key that does not fit."""
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


class Bfloat16State(NamedTuple):
    """The state of another optimizer, its float32 arrays as bfloat16."""

    count: jax.Array
    inner: optax.OptState


def kept_in_bfloat16(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer `tx`, computing in float32, with the arrays of its state kept in bfloat16.

    An update changes Adam's second moment by a thousandth, which rounding to bfloat16's 8 bits
    would lose. So each value is rounded up as often as its remainder says: its mean stays right.
    """

    def init(params: optax.Params) -> Bfloat16State:
        return Bfloat16State(jnp.int32(0), jax.tree.map(_to_bfloat16, tx.init(params)))

    def update(updates, state, params=None):
        inner = jax.tree.map(_to_float32, state.inner)
        updates, inner = tx.update(updates, inner, params)
        key = jax.random.fold_in(jax.random.key(0), state.count)
        # One number for all: a value meets another one at each update, and that is what counts.
        threshold = jax.random.bits(key, (), jnp.uint16)
        inner = jax.tree.map(lambda x: _to_bfloat16(x, threshold), inner)
        return updates, Bfloat16State(state.count + 1, inner)

    return optax.GradientTransformation(init, update)


def _to_bfloat16(x: jax.Array, threshold: jax.Array | None = None) -> jax.Array:
    """A float32 array as bfloat16, rounded by `threshold`; other leaves, such as counts, as is."""
    if x.dtype != jnp.float32 or x.ndim == 0:
        return x
    if threshold is None:
        return x.astype(jnp.bfloat16)
    return round_stochastically(x, threshold)


def _to_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def round_stochastically(x: jax.Array, threshold: jax.Array) -> jax.Array:
    """float32 to bfloat16: away from zero where the dropped bits and `threshold` carry over.

    `threshold` is a uint16; over all of them the mean of the results is `x`. Finite numbers only.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + threshold.astype(jnp.uint32)
    kept = (bits >> DROPPED_BITS).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(kept, jnp.bfloat16)
