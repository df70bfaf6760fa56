"""bfloat16 on a CPU, forwards, on its matrix units (AMX). NHWC.

The units multiply bfloat16 and add up in float32, about four times as fast as vector units compute
in float32. XLA:CPU gives them plain products of two matrices only. Everything else in bfloat16 it
widens to float32 and narrows again, even where pixels are only moved, so that pixels are moved here
as the 16-bit integers that they are stored as. A CPU without such units is probably slower in
bfloat16 than in float32 (not measured).
"""

import jax
import jax.numpy as jnp
from jax import lax

from odfs_jax.nets.kernels.pixels import at_a_time, columns, padded

COLUMNS_CHUNK = 1 << 24  # values of a map's shifted copies that are held at a time: 32 MB


def is_half(x: jax.Array) -> bool:
    """True for a bfloat16 array where JAX runs on a CPU."""
    return x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu"


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Matrix product [..., C] with [C,F] -> [..., F], added up in float32; in the type of `x`."""
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(x, kernel, dims, preferred_element_type=jnp.float32).astype(x.dtype)


def conv_half(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution, "SAME" padding: bfloat16 [N,H,W,C] with [k,k,C,F] -> [N,ceil(H/stride),...,F].

    It is one matrix product over the k*k shifted copies of the map, for a few pictures at a time,
    and has no gradient.
    """
    size, _, _, features = kernel.shape
    n, height, width, _ = x.shape
    flat = kernel.reshape(-1, features)
    values = -(-height // stride) * -(-width // stride) * len(flat)  # of a picture's shifted copies
    pictures = at_a_time(n, COLUMNS_CHUNK // values)

    def convolve(bits: jax.Array) -> jax.Array:
        return product(lax.bitcast_convert_type(columns(bits, size, stride), jnp.bfloat16), flat)

    bits = padded(lax.bitcast_convert_type(x, jnp.uint16), size, stride)
    done = lax.map(convolve, bits.reshape(-1, pictures, *bits.shape[1:]))
    return done.reshape(n, *done.shape[2:])
