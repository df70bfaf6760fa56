"""One encoder for both people and a decoder for each: H64, H128, DF. Spec section 7."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.nets.ops import Decoder, Dense, Downscale, Output, Upscale, scaled


class Encoder(nn.Module):
    """A face [N,R,R,3] to its code [N,R/8,R/8,code_up], through a dense bottleneck."""

    encoder: Sequence[int]
    bottleneck: int
    code: int
    code_up: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate(self.encoder):
            x = Downscale(features, name=f"down_{i}")(x)
        n, height, width, _ = x.shape
        x = Dense(self.bottleneck, name="bottleneck")(x.reshape(n, -1))
        x = Dense(height * width * self.code, name="code")(x)
        return Upscale(self.code_up, name="up")(x.reshape(n, height, width, self.code))


class SharedEncoder(nn.Module):
    """The H64 family. `__call__` rebuilds both people, `swap` puts src's face on dst.

    Four encoder widths and three upscales after the code's give back the resolution.
    Faces are [N, resolution, resolution, 3] in [0, 1]; the swap of a dst face is
    decoder_src(encoder(dst)).
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
        bottleneck, code, code_up = scaled((self.bottleneck, self.code, self.code_up), self.width)
        self.shared = Encoder(scaled(self.encoder, self.width), bottleneck, code, code_up)
        face, mask = scaled(self.decoder, self.width), scaled(self.mask_decoder, self.width)
        self.decoder_src = Decoder(face, mask, remat=self.remat)
        self.decoder_dst = Decoder(face, mask, remat=self.remat)

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output]:
        both = jnp.concatenate([src, dst]).astype(self.dtype)  # one encoder call fills the device
        code_src, code_dst = jnp.split(self.shared(both), [len(src)])
        return {"src": self.decoder_src(code_src), "dst": self.decoder_dst(code_dst)}

    def swap(self, dst: jax.Array) -> Output:
        """src's face with the expression, pose and light of `dst` [N,R,R,3]."""
        return self.decoder_src(self.shared(dst.astype(self.dtype)))
