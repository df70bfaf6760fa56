"""A small grey face of dst drives a large colour one of src: AVATAR.

Source: docs/reference_2018.md section 7.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.nets.base import SwapNet
from odfs_jax.nets.decode import Decoder
from odfs_jax.nets.encode import Encoder, code_side
from odfs_jax.nets.ops import Codes, Output, scaled


class Avatar(SwapNet):
    """AVATAR, in two stages. `face_type` and `resolution` are those of the large face.

    The small stage is the H64 family in grey: one encoder, a decoder for each person. The large
    stage makes src's large face of src's small one. It learns from what the small stage rebuilt,
    for the swap gives it nothing better; no gradient goes back, so that the small stage stays the
    same for both people. The swap is large(decoder_src(encoder(dst))).

    The spec names the stages, not their sizes: the small one's are H64's, the large one's DF's.
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

    @property
    def small(self) -> FaceSpec:
        """What both stages work from."""
        return FaceSpec(self.small_face_type, self.small_resolution, gray=True)

    @property
    def input_specs(self) -> dict[str, FaceSpec]:
        return {"src": self.small, "dst": self.small}

    @property
    def target_specs(self) -> dict[str, dict[str, FaceSpec]]:
        return {"src": {"src": self.small, "src_large": self.face_spec}, "dst": {"dst": self.small}}

    def setup(self) -> None:
        def widths(*names: str) -> tuple[int, ...]:
            return scaled([getattr(self, name) for name in names], self.width)

        side = code_side(self.small_resolution, self.decoder)
        sizes = widths("bottleneck", "code", "code_up")
        self.shared = Encoder(scaled(self.encoder, self.width), side, *sizes)
        face, mask = scaled(self.decoder, self.width), scaled(self.mask_decoder, self.width)
        self.decoder_src = Decoder(face, mask, channels=1, remat=self.remat)
        self.decoder_dst = Decoder(face, mask, channels=1, remat=self.remat)

        side = code_side(self.resolution, self.large_decoder)
        sizes = widths("large_bottleneck", "large_code", "large_code_up")
        self.large_shared = Encoder(scaled(self.large_encoder, self.width), side, *sizes)
        face = scaled(self.large_decoder, self.width)
        mask = scaled(self.large_mask_decoder, self.width)
        self.large_decoder_src = Decoder(face, mask, remat=self.remat)

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

    def swap(self, dst: jax.Array) -> Output:
        face, _ = self.decoder_src(self.shared(dst.astype(self.dtype)))
        return self._enlarged(face)

    def _enlarged(self, face: jax.Array) -> Output:
        return self.large_decoder_src(self.large_shared(face.astype(self.dtype)))
