"""One encoder for both people and a decoder for each: H64, H128, DF.

Source: docs/reference_2018.md section 7.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from odfs_jax.nets.base import SwapNet
from odfs_jax.nets.decode import Decoder
from odfs_jax.nets.encode import Encoder, code_side
from odfs_jax.nets.ops import Codes, Output, scaled


class SharedEncoder(SwapNet):
    """The H64 family. `__call__` rebuilds both people, `swap` puts src's face on dst.

    The swap of a dst face is decoder_src(encoder(dst)).
    """

    encoder: Sequence[int]
    bottleneck: int
    code: int
    code_up: int
    decoder: Sequence[int]
    mask_decoder: Sequence[int]

    def setup(self) -> None:
        sizes = scaled((self.bottleneck, self.code, self.code_up), self.width)
        side = code_side(self.resolution, self.decoder)
        self.shared = Encoder(scaled(self.encoder, self.width), side, *sizes)
        face, mask = scaled(self.decoder, self.width), scaled(self.mask_decoder, self.width)
        self.decoder_src = Decoder(face, mask, remat=self.remat)
        self.decoder_dst = Decoder(face, mask, remat=self.remat)

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output | Codes]:
        both = jnp.concatenate([src, dst]).astype(self.dtype)  # one encoder call fills the device
        code_src, code_dst = jnp.split(self.shared(both), [len(src)])
        return {
            "src": self.decoder_src(code_src),
            "dst": self.decoder_dst(code_dst),
            "codes": {"src": code_src, "dst": code_dst},
        }

    def swap(self, dst: jax.Array) -> Output:
        return self.decoder_src(self.shared(dst.astype(self.dtype)))
