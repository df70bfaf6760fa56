"""From a code to a face and its mask: the decoders that the swap networks share.

Source: docs/reference_2018.md section 7.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.nets.ops import Conv, Upscale


class Upscales(nn.Module):
    """Upscales one after the other: [N,h,w,C] -> [N,R,R,features[-1]], R = h doubled by each.

    Of several codes as `Upscale` of several batches.
    """

    features: Sequence[int]

    @nn.compact
    def __call__(self, *codes: jax.Array) -> jax.Array:
        for i, features in enumerate(self.features):
            codes = (Upscale(features, name=f"up_{i}")(*codes),)
        return codes[0]


class Picture(nn.Module):
    """5x5 convolution and sigmoid of one or more maps [N,R,R,C] -> [N,R,R,channels] in [0, 1]."""

    channels: int

    @nn.compact
    def __call__(self, *maps: jax.Array) -> jax.Array:
        x = Conv(self.channels, 5, name="conv")(*maps)
        return nn.sigmoid(x.astype(jnp.float32))  # losses and masks want full precision


class Branch(nn.Module):
    """`Upscales` and a `Picture`: a code [N,h,w,C] to [N,R,R,channels] in [0, 1]."""

    features: Sequence[int]
    channels: int

    @nn.compact
    def __call__(self, *codes: jax.Array) -> jax.Array:
        return Picture(self.channels, name="out")(Upscales(self.features, name="ups")(*codes))


class Decoder(nn.Module):
    """A code [N,h,w,C] to (face [N,R,R,channels], mask [N,R,R,1]), by two separate branches.

    Of several codes as `Upscale` of several batches. With `remat` the gradient computes a branch
    anew instead of keeping its feature maps.
    """

    face: Sequence[int]
    mask: Sequence[int]
    channels: int = 3
    remat: bool = False

    @nn.compact
    def __call__(self, *codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        branch = nn.remat(Branch) if self.remat else Branch
        face = branch(self.face, self.channels, name="face")(*codes)
        mask = branch(self.mask, 1, name="mask")(*codes)
        return face, mask
