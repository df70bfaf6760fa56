"""Mask networks: which part of a picture is face, and nothing lies before it.

`MaskUnet` is ours. `Xseg` is DeepFaceLab 2.0's: its parameters lie as in the file XSeg_256.npy, see
`saehd.py` for the rule, and likewise the input channels of "conv01/conv" are in the opposite order.
Kernels of the transposed convolutions "upL/conv" are [k,k,features,channels].
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.errors import UserError
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.nets.discriminator import Convolution
from odfs_jax.nets.kernels.pixels import depth_to_space, space_to_depth
from odfs_jax.nets.layers import LEAK, Conv, Dense, Upscale, scaled

EPSILON = 1e-6  # of XSeg's normalization, before training
XSEG_WIDTHS, XSEG_DEPTHS = (1, 2, 4, 8, 8, 8), (2, 2, 2, 3, 3, 3)  # of its levels, in bases
XSEG_BLURS = ((1, 3, 3, 1), (1, 2, 1), (1, 1), (1, 1), (1, 1), (1, 1))  # after each level
XSEG_SHRINKS = 64  # the resolution divided by the side of its dense map
XSEG_DENSE = 16  # bases in its bottleneck


class MaskNet(nn.Module, kw_only=True):
    """Aligned faces to the logits of their masks: [N,R,R,3] in [0, 1] -> float32 [N,R,R,1]."""

    face_type: FaceType
    resolution: int
    width: float = 1.0  # multiplies every layer width
    dtype: jnp.dtype = jnp.float32  # of what is computed; parameters and logits are float32
    conv_impl: str = "auto"  # or "xla": forward-mode derivatives, exports (kernels/dispatch.py)

    shrinks = 16  # what the resolution must be a multiple of

    @property
    def face_spec(self) -> FaceSpec:
        """The face that goes in, and whose mask comes out."""
        return FaceSpec(self.face_type, self.resolution)

    def check_settings(self) -> None:
        """Raises UserError naming a setting of the network that does not fit."""
        if self.resolution % self.shrinks:
            raise UserError(
                f"model.resolution={self.resolution}: expected a multiple of {self.shrinks}"
            )

    def blank(self) -> tuple[jax.Array]:
        """A black face [1,R,R,3], to initialize parameters with."""
        return (jnp.zeros((1, self.resolution, self.resolution, 3)),)


class MaskUnet(MaskNet):
    """A U-Net that begins at a quarter of the resolution, where `levels[0]` features are enough.

    Four by four pixels go in as one and come out as one, which makes it about 30 times as fast as
    `Xseg`. Source: Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015; Shi et al., CVPR 2016 for the
    shuffle of pixels.
    """

    levels: Sequence[int]  # features at 1/4 of the resolution, at 1/8 ...

    @property
    def shrinks(self) -> int:
        return 2 << len(self.levels)

    @nn.compact
    def __call__(self, faces: jax.Array) -> jax.Array:
        def convolve(name: str, features: int, *maps: jax.Array, stride: int = 1) -> jax.Array:
            layer = Conv(features, 3, stride, conv_impl=self.conv_impl, name=name)
            return nn.leaky_relu(layer(*maps), LEAK)

        x = space_to_depth(space_to_depth(faces.astype(self.dtype) - 0.5))
        skips, widths = [], scaled(self.levels, self.width)
        for level, features in enumerate(widths):
            x = convolve(f"down_{level}", features, x, stride=1 if level == 0 else 2)
            x = x + convolve(f"down_{level}_more", features, x)
            skips.append(x)
        for level in reversed(range(len(widths) - 1)):
            up = Upscale(widths[level], self.conv_impl, name=f"up_{level}")(x)
            x = convolve(f"join_{level}", widths[level], up, skips[level])
        x = Conv(16, 3, conv_impl=self.conv_impl, name="out")(x)
        return depth_to_space(depth_to_space(x)).astype(jnp.float32)


class Xseg(MaskNet):
    """DeepFaceLab 2.0's mask network: 17,569,317 parameters at 256 pixels and base 32."""

    base: int  # features at full resolution

    shrinks = XSEG_SHRINKS

    @nn.compact
    def __call__(self, faces: jax.Array) -> jax.Array:
        base = max(4, round(self.base * self.width))

        def unit(name: str, features: int, *maps: jax.Array, up: bool = False) -> jax.Array:
            return XsegUnit(features, up, self.conv_impl, name=name)(*maps)

        x, skips = faces.astype(self.dtype), []
        for level, (width, depth) in enumerate(zip(XSEG_WIDTHS, XSEG_DEPTHS, strict=True)):
            for number in range(1, depth + 1):
                x = unit(f"conv{level}{number}", width * base, x)
            skips.append(x)
            x = blur_pool(x, XSEG_BLURS[level])
        shape = x.transpose(0, 3, 1, 2).shape
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # channel by channel
        x = Dense(XSEG_DENSE * base, self.conv_impl, name="dense1")(x)
        x = Dense(shape[1] * shape[2] * shape[3], self.conv_impl, name="dense2")(x)
        x = x.reshape(shape).transpose(0, 2, 3, 1)
        for level in reversed(range(len(skips))):
            width, depth = XSEG_WIDTHS[level], XSEG_DEPTHS[level]
            # The original goes up in half as many features where it has the most.
            x = unit(f"up{level}", min(width, 4) * base, x, up=True)
            maps = (x, skips[level])
            for number in range(depth, 0, -1):
                maps = (unit(f"uconv{level}{number}", width * base, *maps),)
            (x,) = maps
        return Conv(1, 3, conv_impl=self.conv_impl, name="out_conv")(x).astype(jnp.float32)


class XsegUnit(nn.Module):
    """3x3 convolution, normalization and threshold; with `up` of twice the maps' size.

    Source: Singh, Krishnan, "Filter response normalization layer", CVPR 2020.
    """

    features: int
    up: bool = False
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *maps: jax.Array) -> jax.Array:
        if self.up:
            x = Convolution(self.features, 3, 2, transposed=True, name="conv")(*maps)
        else:
            x = Conv(self.features, 3, conv_impl=self.conv_impl, name="conv")(*maps)
        x = FilterResponseNorm(name="frn")(x)
        return Threshold(name="tlu")(x)


class FilterResponseNorm(nn.Module):
    """Each channel [N,H,W,C] divided by its root mean square over the map, scaled and moved."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        weight = self.param("weight", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        eps = self.param("eps", nn.initializers.constant(EPSILON), (1,), jnp.float32)
        wide = x.astype(jnp.float32)
        power = (wide**2).mean((1, 2), keepdims=True) + jnp.abs(eps).reshape(1, 1, 1, 1)
        scale = jax.lax.rsqrt(power) * weight.reshape(1, 1, 1, -1)
        return (wide * scale + bias.reshape(1, 1, 1, -1)).astype(x.dtype)


class Threshold(nn.Module):
    """The larger one of each channel [N,H,W,C] and a learned number."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        tau = self.param("tau", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return jnp.maximum(x, tau.astype(x.dtype).reshape(1, 1, 1, -1))


def blur_pool(x: jax.Array, taps: Sequence[int]) -> jax.Array:
    """[N,H,W,C] blurred by `taps` along both axes, every other pixel of it: [N,H/2,W/2,C].

    Source: Zhang, "Making convolutional networks shift-invariant again", ICML 2019; as many zeros
    as the original pads.
    """
    before = (len(taps) - 1) // 2
    for axis in (1, 2):
        size = x.shape[axis]
        padding = [(0, 0)] * 4
        padding[axis] = (before, len(taps) - 1 - before)
        padded = jnp.pad(x, padding)
        parts = (
            tap * jax.lax.slice_in_dim(padded, i, i + size, 2, axis) for i, tap in enumerate(taps)
        )
        x = sum(parts) / sum(taps)
    return x
