"""Discriminators: true faces told from made ones, codes of one person from those of another.

For training only; no swap needs them. The parameters lie as those of DeepFaceLab 2.0's "GAN" and
"code_discriminator" files: see `saehd.py` for the rule. Kernels of
the transposed convolutions, "upconvs_0" the deepest, are [k,k,features,channels].
"""

from collections.abc import Sequence
from functools import cache
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.nets.kernels.dispatch import add_bias
from odfs_jax.nets.kernels.gradients import conv_transposed, conv_xla
from odfs_jax.nets.layers import INIT

SLOPE, CODE_SLOPE = 0.2, 0.1  # of the leaky ReLUs below zero
CODE_FEATURES = 256  # of the first convolution over a code
WIDEST = 512  # channels
MOST_LAYERS = 9


@cache
def strides_for(patch_size: int) -> tuple[int, ...]:
    """The strides of a stack of 3x3 convolutions whose logits see about `patch_size` pixels.

    The first is 2, the others 1 or 2. Of the stacks with the same receptive field the one with the
    fewest layers counts, then the one with the largest strides.
    """
    best: dict[int, tuple] = {}
    for count in range(MOST_LAYERS):
        for others in product((1, 2), repeat=count):
            strides = (2, *others)
            field, total = 3, 2
            for stride in others:
                field, total = field + 2 * total, total * stride
            rank = (len(strides), -sum(strides), strides)
            best[field] = min(best.get(field, rank), rank)
    nearest = min(best, key=lambda field: (abs(field - patch_size), field))
    return best[nearest][-1]


class Convolution(nn.Module):
    """Convolution with bias, as many zeros on all sides: [N,H,W,C] -> [N,ceil(H/stride),...].

    A `transposed` one gives [N,H*stride,W*stride,features], padded as "SAME".
    """

    features: int
    size: int
    stride: int = 1
    transposed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ends = x.shape[-1], self.features
        shape = (self.size, self.size, *(ends[::-1] if self.transposed else ends))
        kernel = self.param("kernel", INIT, shape, jnp.float32).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        if self.transposed and self.stride == 2:
            x = conv_transposed(x, kernel)
        else:
            kernel = kernel[::-1, ::-1].swapaxes(2, 3) if self.transposed else kernel
            x = conv_xla(x, kernel, self.stride, [(self.size // 2,) * 2] * 2)
        return add_bias(x, bias, "xla")  # R1 differentiates it twice


class Discriminator(nn.Module):
    """Faces [N,R,R,C] to logits, above 0 where a patch looks true; a list of one or two maps.

    The first map is coarse, R divided by the `strides` a side. With `unet` a second one has a logit
    for each pixel: Schonfeld, Schiele, Khoreva, "A U-Net based discriminator for generative
    adversarial networks", CVPR 2020. `dims` are the channels at full resolution.
    """

    strides: Sequence[int]
    dims: int
    unet: bool
    dtype: jnp.dtype = jnp.float32  # of what is computed; parameters and logits are float32

    @nn.compact
    def __call__(self, faces: jax.Array) -> list[jax.Array]:
        def layer(x: jax.Array, *settings, **more) -> jax.Array:
            return nn.leaky_relu(Convolution(*settings, **more)(x), SLOPE)

        count = len(self.strides)
        widths = [min(self.dims << i, WIDEST) for i in range(count + 1)]
        x = layer(faces.astype(self.dtype), self.dims, 1, name="in_conv")
        skips = []
        for i, stride in enumerate(self.strides):
            skips.append(x)
            x = layer(x, widths[i + 1], 3, stride, name=f"convs_{i}")
        logits = [Convolution(1, 1, name="center_out")(x)]
        if self.unet:
            x = layer(x, widths[-1], 1, name="center_conv")
            for i in range(count):
                level = count - 1 - i
                settings = (widths[level], 3, self.strides[level], True)
                up = layer(x, *settings, name=f"upconvs_{i}")
                x = jnp.concatenate([skips[level], up], axis=-1)
            logits.append(Convolution(1, 1, name="out_conv")(x))
        return [of_patch.astype(jnp.float32) for of_patch in logits]


class CodeDiscriminator(nn.Module):
    """Codes [N,h,w,C] or [N,C] to logits [N,h',w',1], above 0 where a code looks like dst's.

    A larger code is halved more often: once, and once more for each 8 of its width.
    """

    dtype: jnp.dtype = jnp.float32  # of what is computed; parameters and logits are float32

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        x = codes.astype(self.dtype)
        x = x if x.ndim == 4 else x[:, None, None]
        for i in range(1 + x.shape[2] // 8):
            features, size = CODE_FEATURES * min(1 << i, 8), 3 if i else 4
            x = nn.leaky_relu(Convolution(features, size, 2, name=f"convs_{i}")(x), CODE_SLOPE)
        return Convolution(1, 1, name="out_conv")(x).astype(jnp.float32)
