"""The layers, encoders and decoders that every swap network is made of. NHWC; parameters float32.

A layer computes in the type of its input. Its `conv_impl` says which programs compute it, see
`kernels.dispatch`; a network hands its own down. Source: docs/reference_2018.md section 7.
"""

from collections.abc import Sequence
from itertools import accumulate

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.nets.kernels.dispatch import add_bias, conv, dense
from odfs_jax.nets.kernels.pixels import depth_to_space

Output = tuple[jax.Array, jax.Array]  # (face [N,R,R,3 or 1], mask [N,R,R,1]), float32 in [0, 1]
Swap = tuple[jax.Array, jax.Array, jax.Array | None]  # (face, its mask, dst's own mask), likewise
Codes = dict[str, jax.Array]  # side -> code [N, ...] in the type of what is computed

LEAK = 0.1  # slope of the leaky ReLU below zero
# He et al. 2015 for leaky ReLU: the 2018 Glorot start lets the signal fade over a dozen layers, and
# needs about twice the iterations to the same loss (docs/demo.md).
INIT = nn.initializers.variance_scaling(2 / (1 + LEAK**2), "fan_in", "uniform")


class Conv(nn.Module):
    """Convolution with bias, "SAME" padding: [N,H,W,C] -> [N,ceil(H/stride),...,features].

    Given several maps it convolves all their channels, without a copy that joins them. Given one
    map several times it convolves that map once, with the sum of its kernels. `mirrored` maps, read
    from right to left and from below, are convolved with the kernel turned likewise.
    """

    features: int
    kernel_size: int
    stride: int = 1
    mirrored: bool = False
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *maps: jax.Array) -> jax.Array:
        ends = list(accumulate(x.shape[-1] for x in maps))
        shape = (self.kernel_size, self.kernel_size, ends[-1], self.features)
        kernel = self.param("kernel", INIT, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        kernel = kernel[::-1, ::-1] if self.mirrored else kernel
        kernels = jnp.split(kernel, ends[:-1], axis=2)
        if all(x is maps[0] for x in maps):
            maps, kernels = maps[:1], [sum(kernels[1:], kernels[0])]
        parts = [
            conv(x, k.astype(x.dtype), self.stride, self.conv_impl)
            for x, k in zip(maps, kernels, strict=True)
        ]
        return add_bias(sum(parts[1:], parts[0]), bias, self.conv_impl)


class Dense(nn.Module):
    """Fully connected layer with bias: [N, C] -> [N, features]."""

    features: int
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", INIT, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return add_bias(dense(x, kernel.astype(x.dtype), self.conv_impl), bias, self.conv_impl)


class Downscale(nn.Module):
    """5x5 convolution of stride 2 and leaky ReLU: [N,H,W,C] -> [N,H/2,W/2,features]."""

    features: int
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.features, 5, stride=2, conv_impl=self.conv_impl, name="conv")(x)
        return nn.leaky_relu(x, LEAK)


def convolve_batches(convolve: Conv, batches: Sequence[jax.Array]) -> jax.Array:
    """Several batches [N,H,W,C] convolved, one after the other in one.

    C is the most channels that one of them has; a batch of C/2 or C/3 channels stands for itself
    repeated along the channels, which is not computed twice.
    """
    channels = max(x.shape[-1] for x in batches)
    convolved = [convolve(*[x] * (channels // x.shape[-1])) for x in batches]
    return jnp.concatenate(convolved) if len(batches) > 1 else convolved[0]


class Upscale(nn.Module):
    """3x3 convolution, leaky ReLU, pixel shuffle: [N,H,W,C] -> [N,2H,2W,features].

    Given several batches it returns them one after the other in one: see `convolve_batches`.
    """

    features: int
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *batches: jax.Array) -> jax.Array:
        convolve = Conv(4 * self.features, 3, conv_impl=self.conv_impl, name="conv")
        return depth_to_space(nn.leaky_relu(convolve_batches(convolve, batches), LEAK))


class Features(nn.Module):
    """A face [N,R,R,C] to its features [N, h * h * widths[-1]], h = R halved by each width."""

    widths: Sequence[int]
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate(self.widths):
            x = Downscale(features, self.conv_impl, name=f"down_{i}")(x)
        return x.reshape(len(x), -1)


class Inter(nn.Module):
    """Features [N, C] to a code [N, 2*side, 2*side, code_up], through a dense bottleneck."""

    side: int
    bottleneck: int
    code: int
    code_up: int
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Dense(self.bottleneck, self.conv_impl, name="bottleneck")(x)
        x = Dense(self.side * self.side * self.code, self.conv_impl, name="code")(x)
        x = x.reshape(-1, self.side, self.side, self.code)
        return Upscale(self.code_up, self.conv_impl, name="up")(x)


class Encoder(nn.Module):
    """A face [N,R,R,C] to its code [N, 2*side, 2*side, code_up]: `Features`, then `Inter`."""

    widths: Sequence[int]
    side: int
    bottleneck: int
    code: int
    code_up: int
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Features(self.widths, self.conv_impl, name="features")(x)
        sizes = (self.side, self.bottleneck, self.code, self.code_up)
        return Inter(*sizes, self.conv_impl, name="inter")(x)


class Upscales(nn.Module):
    """Upscales one after the other: [N,h,w,C] -> [N,R,R,features[-1]], R = h doubled by each.

    Given several codes it returns their maps in one batch, one code after the other (see
    `convolve_batches` on their channels).
    """

    features: Sequence[int]
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *codes: jax.Array) -> jax.Array:
        for i, features in enumerate(self.features):
            codes = (Upscale(features, self.conv_impl, name=f"up_{i}")(*codes),)
        return codes[0]


class Picture(nn.Module):
    """Convolution and sigmoid of one or more maps [N,R,R,C] -> [N,R,R,channels] in [0, 1].

    A 5x5 convolution gives a pixel for each one of the maps. With `subpixel` a 3x3 convolution
    gives four, [N,2R,2R,channels]: Shi et al., "Real-time single image and video super-resolution
    using an efficient sub-pixel convolutional neural network", CVPR 2016.
    """

    channels: int
    subpixel: bool = False
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *maps: jax.Array) -> jax.Array:
        features, size = (4 * self.channels, 3) if self.subpixel else (self.channels, 5)
        x = Conv(features, size, conv_impl=self.conv_impl, name="conv")(*maps)
        x = depth_to_space(x) if self.subpixel else x
        return nn.sigmoid(x.astype(jnp.float32))  # losses and masks want full precision


class Branch(nn.Module):
    """`Upscales` and a `Picture`: a code [N,h,w,C] to [N,R,R,channels] in [0, 1]."""

    features: Sequence[int]
    channels: int
    subpixel: bool = False
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *codes: jax.Array) -> jax.Array:
        x = Upscales(self.features, self.conv_impl, name="ups")(*codes)
        return Picture(self.channels, self.subpixel, self.conv_impl, name="out")(x)


class Decoder(nn.Module):
    """A code [N,h,w,C] to (face [N,R,R,channels], mask [N,R,R,1]), by two separate branches.

    Given several codes it returns their faces in one batch, one code after the other (see
    `convolve_batches` on their channels). With `remat` the gradient computes a branch a second time
    instead of keeping its feature maps.
    """

    face: Sequence[int]
    mask: Sequence[int]
    channels: int = 3
    subpixel: bool = False
    remat: bool = False
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *codes: jax.Array) -> Output:
        branch = nn.remat(Branch) if self.remat else Branch
        face = branch(self.face, self.channels, self.subpixel, self.conv_impl, name="face")(*codes)
        mask = branch(self.mask, 1, self.subpixel, self.conv_impl, name="mask")(*codes)
        return face, mask


def code_side(resolution: int, decoder: Sequence[int], *, subpixel: bool = False) -> int:
    """Side of the dense map from which an `Inter` and a decoder upscale to `resolution`.

    With `subpixel` the decoder's `Picture` doubles the side once more.
    """
    return resolution >> (1 + len(decoder) + subpixel)


def scaled(widths: Sequence[int], width: float) -> tuple[int, ...]:
    """`widths` times the width multiplier, each at least 4 and a multiple of 4."""
    return tuple(max(4, round(w * width / 4) * 4) for w in widths)
