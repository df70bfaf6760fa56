"""Half the memory for an optimiser's state: float32 values kept in bfloat16 between updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

DROPPED = 16  # low bits of a float32 that a bfloat16 has not


class Bfloat16State(NamedTuple):
    """The state of the optimiser inside, its float32 arrays as bfloat16."""

    count: jax.Array
    inner: optax.OptState


def kept_in_bfloat16(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx`, computing in float32, with the arrays of its state kept in bfloat16.

    An update changes Adam's second moment by a thousandth, which rounding to bfloat16's 8 bits
    would lose. So each value is rounded up as often as its remainder says: its mean stays right.
    """

    def init(params: optax.Params) -> Bfloat16State:
        return Bfloat16State(jnp.int32(0), jax.tree.map(_halved, tx.init(params)))

    def update(updates, state, params=None):
        inner = jax.tree.map(_restored, state.inner)
        updates, inner = tx.update(updates, inner, params)
        key = jax.random.fold_in(jax.random.key(0), state.count)
        # One number for all: a value meets another one at each update, and that is what counts.
        threshold = jax.random.bits(key, (), jnp.uint16)
        inner = jax.tree.map(lambda x: _halved(x, threshold), inner)
        return updates, Bfloat16State(state.count + 1, inner)

    return optax.GradientTransformation(init, update)


def _halved(x: jax.Array, threshold: jax.Array | None = None) -> jax.Array:
    """A float32 array as bfloat16, rounded by `threshold`; anything else, counts say, as it is."""
    if x.dtype != jnp.float32 or x.ndim == 0:
        return x
    if threshold is None:
        return x.astype(jnp.bfloat16)
    return rounded(x, threshold)


def _restored(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def rounded(x: jax.Array, threshold: jax.Array) -> jax.Array:
    """float32 to bfloat16: away from zero where the dropped bits and `threshold` carry over.

    `threshold` is a uint16; over all of them the mean of the results is `x`. Finite numbers only.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + threshold.astype(jnp.uint32)
    kept = (bits >> DROPPED).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(kept, jnp.bfloat16)
