"""From a face to its code: the encoders that the swap networks share.

Source: docs/reference_2018.md section 7.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax

from odfs_jax.nets.ops import Dense, Downscale, Upscale


class Features(nn.Module):
    """A face [N,R,R,C] to its features [N, h * h * widths[-1]], h = R halved by each width."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate(self.widths):
            x = Downscale(features, name=f"down_{i}")(x)
        return x.reshape(len(x), -1)


class Inter(nn.Module):
    """Features [N, C] to a code [N, 2*side, 2*side, code_up], through a dense bottleneck."""

    side: int
    bottleneck: int
    code: int
    code_up: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Dense(self.bottleneck, name="bottleneck")(x)
        x = Dense(self.side * self.side * self.code, name="code")(x)
        return Upscale(self.code_up, name="up")(x.reshape(-1, self.side, self.side, self.code))


class Encoder(nn.Module):
    """A face [N,R,R,C] to its code [N, 2*side, 2*side, code_up]: `Features`, then `Inter`."""

    widths: Sequence[int]
    side: int
    bottleneck: int
    code: int
    code_up: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Features(self.widths, name="features")(x)
        sizes = (self.side, self.bottleneck, self.code, self.code_up)
        return Inter(*sizes, name="inter")(x)


def code_side(resolution: int, decoder: Sequence[int]) -> int:
    """Side of the dense map from which an `Inter` and a decoder upscale to `resolution`."""
    return resolution >> (1 + len(decoder))
