"""A small gray face of dst drives a large color one of src: AVATAR.

Source: docs/reference_2018.md section 7.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.nets.base import SwapNet
from odfs_jax.nets.layers import Codes, Decoder, Encoder, Output, Swap, code_side, scaled


class Avatar(SwapNet):
    """AVATAR, in two stages. `face_type` and `resolution` are those of the large face.

    The small stage is the H64 family in gray: one encoder, a decoder for each person. The large
    stage makes src's large face of src's small one. It learns from what the small stage rebuilt,
    because a swap gives it nothing better; no gradient goes back, so that the small stage treats
    both people alike. The swap is large(decoder_src(encoder(dst))).

    The 2018 program's description names the stages, not their sizes. The fields, widths before
    `width` multiplies them, are H64's for the small stage and DF's for the large one.
    """

    small_face_type: FaceType
    small_resolution: int
    encoder: Sequence[int]
    bottleneck: int
    code: int
    code_up: int
    decoder: Sequence[int]
    mask_decoder: Sequence[int]
    large_encoder: Sequence[int]
    large_bottleneck: int
    large_code: int
    large_code_up: int
    large_decoder: Sequence[int]
    large_mask_decoder: Sequence[int]

    has_dst_mask = False  # dst is rebuilt as a smaller face than the swap's

    @property
    def small(self) -> FaceSpec:
        """The face that both stages work from."""
        return FaceSpec(self.small_face_type, self.small_resolution, gray=True)

    @property
    def input_specs(self) -> dict[str, FaceSpec]:
        return {"src": self.small, "dst": self.small}

    @property
    def target_specs(self) -> dict[str, dict[str, FaceSpec]]:
        return {"src": {"src": self.small, "src_large": self.face_spec}, "dst": {"dst": self.small}}

    def setup(self) -> None:
        def encoder(features: Sequence[int], side: int, *sizes: int) -> Encoder:
            widths, sizes = scaled(features, self.width), scaled(sizes, self.width)
            return Encoder(widths, side, *sizes, self.conv_impl)

        def decoder(face: Sequence[int], mask: Sequence[int], channels: int) -> Decoder:
            face, mask = scaled(face, self.width), scaled(mask, self.width)
            return Decoder(face, mask, channels, remat=self.remat, conv_impl=self.conv_impl)

        side = code_side(self.small_resolution, self.decoder)
        self.shared = encoder(self.encoder, side, self.bottleneck, self.code, self.code_up)
        self.decoder_src = decoder(self.decoder, self.mask_decoder, channels=1)
        self.decoder_dst = decoder(self.decoder, self.mask_decoder, channels=1)

        side = code_side(self.resolution, self.large_decoder)
        sizes = self.large_bottleneck, self.large_code, self.large_code_up
        self.large_shared = encoder(self.large_encoder, side, *sizes)
        self.large_decoder_src = decoder(self.large_decoder, self.large_mask_decoder, channels=3)

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output | Codes]:
        code = self.shared(jnp.concatenate([src, dst]).astype(self.dtype))
        code_src, code_dst = jnp.split(code, [len(src)])
        small = self.decoder_src(code_src)
        return {
            "src": small,
            "src_large": self._enlarged(jax.lax.stop_gradient(small[0])),
            "dst": self.decoder_dst(code_dst),
            "codes": {"src": code_src, "dst": code_dst},
        }

    def swap(self, dst: jax.Array) -> Swap:
        face, _ = self.decoder_src(self.shared(dst.astype(self.dtype)))
        return *self._enlarged(face), None

    def _enlarged(self, face: jax.Array) -> Output:
        return self.large_decoder_src(self.large_shared(face.astype(self.dtype)))
