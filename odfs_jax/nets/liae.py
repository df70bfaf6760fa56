"""One decoder for both people, told apart by the code: LIAEF128.

Source: docs/reference_2018.md section 7.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from odfs_jax.nets.base import SwapNet
from odfs_jax.nets.decode import Decoder
from odfs_jax.nets.encode import Features, Inter, code_side
from odfs_jax.nets.ops import Codes, Output, scaled


class Liae(SwapNet):
    """LIAEF128. src = decoder(AB, AB), dst = decoder(B, AB); the swap is the src path on dst.

    AB = inter_AB(encoder(x)) is what both people share, B = inter_B(encoder(x)) is dst's own.
    """

    encoder: Sequence[int]
    bottleneck: int
    code: int
    code_up: int
    decoder: Sequence[int]
    mask_decoder: Sequence[int]

    def setup(self) -> None:
        self.shared = Features(scaled(self.encoder, self.width))
        sizes = scaled((self.bottleneck, self.code, self.code_up), self.width)
        side = code_side(self.resolution, self.decoder)
        self.inter_ab = Inter(side, *sizes)
        self.inter_b = Inter(side, *sizes)
        face, mask = scaled(self.decoder, self.width), scaled(self.mask_decoder, self.width)
        self.decoder_both = Decoder(face, mask, remat=self.remat)

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output | Codes]:
        both = jnp.concatenate([src, dst]).astype(self.dtype)
        features, n = self.shared(both), len(src)
        ab, b = self.inter_ab(features), self.inter_b(features[n:])
        code_of_dst = jnp.concatenate([b, ab[n:]], axis=-1)
        face, mask = self.decoder_both(ab[:n], code_of_dst)  # src's stands for (AB, AB)
        return {
            "src": (face[:n], mask[:n]),
            "dst": (face[n:], mask[n:]),
            "codes": {"src": ab[:n], "dst": ab[n:]},
        }

    def swap(self, dst: jax.Array) -> Output:
        ab = self.inter_ab(self.shared(dst.astype(self.dtype)))
        return self.decoder_both(jnp.concatenate([ab, ab], axis=-1))
