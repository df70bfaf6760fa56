"""Colour transfer from the dst face to the predicted one: float32 [N, R, R, 3] in [0, 1]."""

import jax
import jax.numpy as jnp

BINS = 256


def histogram_match(faces: jax.Array, targets: jax.Array, where: jax.Array) -> jax.Array:
    """`faces` with each channel's histogram made that of `targets`, counted `where` is True.

    `where` is bool [N, R, R, 1]. All pixels are mapped; values between two of the 256 bins are
    interpolated, so that no bands appear. On 8-bit values it equals
    `skimage.exposure.match_histograms`. A face with nothing to count is returned as it is.
    """

    def channel(face: jax.Array, target: jax.Array, count: jax.Array) -> jax.Array:
        source, wanted = _histogram(face, count), _histogram(target, count)
        value = jnp.arange(BINS)
        filled = jnp.where(wanted > 0, value, -1)
        # Empty bins take the value of the last full one: quantiles jump only at full bins.
        values = jnp.maximum(jax.lax.cummax(filled), jnp.argmax(wanted > 0))
        total = jnp.maximum(count.sum(), 1).astype(jnp.float32)
        table = jnp.interp(
            jnp.cumsum(source) / total, jnp.cumsum(wanted) / total, values.astype(jnp.float32)
        )
        return _look_up(table, face * (BINS - 1)) / (BINS - 1)

    def one(face: jax.Array, target: jax.Array, count: jax.Array) -> jax.Array:
        matched = jax.vmap(channel, in_axes=(-1, -1, None), out_axes=-1)(face, target, count)
        return jnp.where(count.any(), matched, face)

    return jax.vmap(one)(faces, targets, where[..., 0])


def _look_up(table: jax.Array, values: jax.Array) -> jax.Array:
    """`table` [256] at `values` in 0..255, linear between entries."""
    values = jnp.clip(values, 0.0, BINS - 1)
    low = jnp.minimum(jnp.floor(values).astype(jnp.int32), BINS - 2)
    share = values - low.astype(jnp.float32)
    return table[low] * (1 - share) + table[low + 1] * share


def _histogram(plane: jax.Array, count: jax.Array) -> jax.Array:
    """float32 [256]: how often each 8-bit value occurs in `plane` [R, R] where `count` is True."""
    bins = jnp.clip(jnp.round(plane * (BINS - 1)), 0, BINS - 1).astype(jnp.int32)
    return jnp.zeros(BINS).at[bins.ravel()].add(count.ravel().astype(jnp.float32))
