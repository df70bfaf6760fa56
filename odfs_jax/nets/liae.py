"""One decoder for both people, told apart by the code: LIAEF128.

Source: docs/reference_2018.md section 7.
"""

import jax
import jax.numpy as jnp

from odfs_jax.nets.base import CodeNet
from odfs_jax.nets.layers import Codes, Output, Swap


class Liae(CodeNet):
    """LIAEF128. src = decoder(AB, AB), dst = decoder(B, AB); the swap is the src path on dst.

    AB = inter_AB(encoder(x)) is what both people share, B = inter_B(encoder(x)) is dst's own.
    """

    def setup(self) -> None:
        self.shared = self.make_features()
        self.inter_ab = self.make_inter()
        self.inter_b = self.make_inter()
        self.decoder_both = self.make_decoder()

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

    def swap(self, dst: jax.Array) -> Swap:
        features = self.shared(dst.astype(self.dtype))
        ab, b = self.inter_ab(features), self.inter_b(features)
        _, dst_mask = self.decoder_both(jnp.concatenate([b, ab], axis=-1))
        return *self.decoder_both(jnp.concatenate([ab, ab], axis=-1)), dst_mask
