"""One encoder for both people and a decoder for each: H64, H128, DF.

Source: docs/reference_2018.md section 7.
"""

import jax
import jax.numpy as jnp

from odfs_jax.nets.base import CodeNet
from odfs_jax.nets.layers import Codes, Output, Swap


class SharedEncoder(CodeNet):
    """The H64 family: a person's face is decoder_of_person(encoder(face)).

    The swap of a dst face is decoder_src(encoder(dst)).
    """

    def setup(self) -> None:
        self.shared = self.make_encoder()
        self.decoder_src = self.make_decoder()
        self.decoder_dst = self.make_decoder()

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output | Codes]:
        both = jnp.concatenate([src, dst]).astype(self.dtype)  # one encoder call fills the device
        code_src, code_dst = jnp.split(self.shared(both), [len(src)])
        return {
            "src": self.decoder_src(code_src),
            "dst": self.decoder_dst(code_dst),
            "codes": {"src": code_src, "dst": code_dst},
        }

    def swap(self, dst: jax.Array) -> Swap:
        code = self.shared(dst.astype(self.dtype))
        _, dst_mask = self.decoder_dst(code)
        return *self.decoder_src(code), dst_mask
