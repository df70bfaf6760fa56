"""bfloat16 on a CPU, forwards, as its matrix units (AMX) take it. NHWC.

They multiply bfloat16 and add up in float32, some four times as fast as vector units do float32.
XLA:CPU gives them plain products of two matrices; all else in bfloat16 it widens to float32 and
narrows again, moved pixels too: here those are moved as the 16-bit integers that they are stored
as. A CPU without such units is probably slower in bfloat16 than in float32 (not measured).
"""

import jax
import jax.numpy as jnp
from jax import lax

from odfs_jax.nets.kernels.pixels import at_a_time, columns, padded

COLUMNS = 1 << 24  # values of the shifted pictures that are held at a time: 32 MB


def is_half(x: jax.Array) -> bool:
    """True of bfloat16 on a CPU."""
    return x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu"


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., C] with [C,F] -> [..., F], added up in float32, in the type of `x`."""
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(x, kernel, dims, preferred_element_type=jnp.float32).astype(x.dtype)


def conv_half(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution, "SAME": bfloat16 [N,H,W,C] with [k,k,C,F] -> [N,ceil(H/stride),...,F].

    As one product over the k*k shifted pictures, of a few pictures at a time. It has no gradients.
    """
    size, _, _, features = kernel.shape
    n, height, width, _ = x.shape
    flat = kernel.reshape(-1, features)
    values = -(-height // stride) * -(-width // stride) * len(flat)  # of the columns of a picture
    pictures = at_a_time(n, COLUMNS // values)

    def convolve(bits: jax.Array) -> jax.Array:
        return product(lax.bitcast_convert_type(columns(bits, size, stride), jnp.bfloat16), flat)

    bits = padded(lax.bitcast_convert_type(x, jnp.uint16), size, stride)
    done = lax.map(convolve, bits.reshape(-1, pictures, *bits.shape[1:]))
    return done.reshape(n, *done.shape[2:])
