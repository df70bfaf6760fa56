"""Histogram matching, channel by channel."""

import jax
import jax.numpy as jnp

BINS = 256


def measure(faces: jax.Array, targets: jax.Array, where: jax.Array) -> jax.Array:
    """Tables float32 [N, 3, 256] of the value, 0..255, that each 8-bit value becomes.

    They give `faces` the histograms of `targets`, both [N, R, R, 3], counted where `where`, bool
    [N, R, R, 1], is True. On 8-bit values they equal `skimage.exposure.match_histograms`.
    """

    def channel(face: jax.Array, target: jax.Array, count: jax.Array) -> jax.Array:
        source, wanted = _histogram(face, count), _histogram(target, count)
        value = jnp.arange(BINS)
        filled = jnp.where(wanted > 0, value, -1)
        # Empty bins take the value of the last full one: quantiles jump only at full bins.
        values = jnp.maximum(jax.lax.cummax(filled), jnp.argmax(wanted > 0))
        total = jnp.maximum(count.sum(), 1).astype(jnp.float32)
        return jnp.interp(
            jnp.cumsum(source) / total, jnp.cumsum(wanted) / total, values.astype(jnp.float32)
        )

    channels = jax.vmap(channel, in_axes=(-1, -1, None))
    return jax.vmap(channels)(faces, targets, where[..., 0])


def apply(pictures: jax.Array, tables: jax.Array) -> jax.Array:
    """`pictures` [N, h, w, 3] through `tables` [N, 3, 256].

    Values between two bins are interpolated, so that no bands appear.
    """
    channels = jax.vmap(look_up, in_axes=(0, -1), out_axes=-1)
    return jax.vmap(channels)(tables, pictures * (BINS - 1)) / (BINS - 1)


def look_up(table: jax.Array, values: jax.Array) -> jax.Array:
    """`table` [n] at `values` 0..n - 1: linear between entries, constant beyond the ends."""
    last = table.shape[0] - 1
    values = jnp.clip(values, 0.0, last)
    low = jnp.minimum(jnp.floor(values).astype(jnp.int32), last - 1)
    share = values - low.astype(jnp.float32)
    return table[low] * (1 - share) + table[low + 1] * share


def _histogram(plane: jax.Array, count: jax.Array) -> jax.Array:
    """float32 [256]: the pixels of `plane` [R, R] with each 8-bit value, where `count` is True."""
    bins = jnp.clip(jnp.round(plane * (BINS - 1)), 0, BINS - 1).astype(jnp.int32)
    return jnp.zeros(BINS).at[bins.ravel()].add(count.ravel().astype(jnp.float32))
