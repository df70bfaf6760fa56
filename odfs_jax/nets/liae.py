"""One decoder for both people, told apart by the code: LIAEF128. Spec section 7."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.nets.ops import Decoder, Dense, Downscale, Output, Upscale, scaled


class Features(nn.Module):
    """A face [N,R,R,3] to its features [N, R/16 * R/16 * widths[-1]]."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate(self.widths):
            x = Downscale(features, name=f"down_{i}")(x)
        return x.reshape(len(x), -1)


class Inter(nn.Module):
    """Features [N, C] to half of a code [N, 2*side, 2*side, code_up]."""

    side: int
    bottleneck: int
    code: int
    code_up: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Dense(self.bottleneck, name="bottleneck")(x)
        x = Dense(self.side * self.side * self.code, name="code")(x)
        return Upscale(self.code_up, name="up")(x.reshape(-1, self.side, self.side, self.code))


class Liae(nn.Module):
    """LIAEF128. src = decoder(AB, AB), dst = decoder(B, AB); the swap is the src path on dst.

    AB = inter_AB(encoder(x)) is what both people share, B = inter_B(encoder(x)) is dst's own.
    Faces are [N, resolution, resolution, 3] in [0, 1].
    """

    resolution: int
    encoder: Sequence[int]
    bottleneck: int
    code: int
    code_up: int
    decoder: Sequence[int]
    mask_decoder: Sequence[int]
    width: float = 1.0
    dtype: jnp.dtype = jnp.float32
    remat: bool = False  # of the decoders

    def setup(self) -> None:
        self.shared = Features(scaled(self.encoder, self.width))
        sizes = scaled((self.bottleneck, self.code, self.code_up), self.width)
        self.inter_ab = Inter(self.resolution // 16, *sizes)
        self.inter_b = Inter(self.resolution // 16, *sizes)
        face, mask = scaled(self.decoder, self.width), scaled(self.mask_decoder, self.width)
        self.decoder_both = Decoder(face, mask, remat=self.remat)

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output]:
        both = jnp.concatenate([src, dst]).astype(self.dtype)
        features = self.shared(both)
        ab = self.inter_ab(features)
        b = self.inter_b(features[len(src) :])
        own = jnp.concatenate([ab[: len(src)], b])
        face, mask = self.decoder_both(jnp.concatenate([own, ab], axis=-1))
        n = len(src)
        return {"src": (face[:n], mask[:n]), "dst": (face[n:], mask[n:])}

    def swap(self, dst: jax.Array) -> Output:
        """src's face with the expression, pose and light of `dst` [N,R,R,3]."""
        ab = self.inter_ab(self.shared(dst.astype(self.dtype)))
        return self.decoder_both(jnp.concatenate([ab, ab], axis=-1))
