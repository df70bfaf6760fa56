"""src learned in gray, dst in color: MIAEF128.

Source: docs/reference_2018.md section 7.
"""

from collections.abc import Sequence
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.faces.spec import FaceSpec
from odfs_jax.nets.base import CodeNet
from odfs_jax.nets.layers import Codes, Output, Picture, Swap, Upscales, scaled


class Common(nn.Module):
    """A code [N,h,w,C] to face features [N,R,R,face[-1]] and mask features [N,R,R,mask[-1]].

    With `remat` the gradient computes a branch a second time instead of keeping its feature maps.
    """

    face: Sequence[int]
    mask: Sequence[int]
    remat: bool
    conv_impl: str

    @nn.compact
    def __call__(self, code: jax.Array) -> tuple[jax.Array, jax.Array]:
        upscales = nn.remat(Upscales) if self.remat else Upscales
        face = upscales(self.face, self.conv_impl, name="face")(code)
        return face, upscales(self.mask, self.conv_impl, name="mask")(code)


class Miaef(CodeNet):
    """MIAEF128. Two decoders make maps of a code, one layer each a gray or a color picture.

    A = inter_a(features(x)) is what both people share, B = inter_b(features(x)) is dst's own.
    common_a reads src's code (A, A) for src and dst's (B, A) for dst; common_b always dst's, and
    src alone in the swap. So the swap has src's features in dst's brightness and color.
    """

    @property
    def input_specs(self) -> dict[str, FaceSpec]:
        return {"src": replace(self.face_spec, gray=True), "dst": self.face_spec}

    @property
    def target_specs(self) -> dict[str, dict[str, FaceSpec]]:
        return {"src": {"src": replace(self.face_spec, gray=True)}, "dst": {"dst": self.face_spec}}

    def setup(self) -> None:
        self.shared = self.make_features()
        self.inter_a = self.make_inter()
        self.inter_b = self.make_inter()
        widths = scaled(self.decoder, self.width), scaled(self.mask_decoder, self.width)
        self.common_a = Common(*widths, self.remat, self.conv_impl)
        self.common_b = Common(*widths, self.remat, self.conv_impl)
        self.bw, self.rgb, self.mask = (Picture(n, conv_impl=self.conv_impl) for n in (1, 3, 1))

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output | Codes]:
        n = len(src)
        features = self.shared(jnp.concatenate([src, dst]).astype(self.dtype))
        a = self.inter_a(features)
        b = self.inter_b(features[n:])
        code = jnp.concatenate([jnp.concatenate([a[:n], b]), a], axis=-1)
        face_a, mask_a = self.common_a(code)
        face_b, mask_b = self.common_b(code[n:])
        return {
            "src": (self.bw(face_a[:n], face_a[:n]), self.mask(mask_a[:n], mask_a[:n])),
            "dst": (self.rgb(face_a[n:], face_b), self.mask(mask_a[n:], mask_b)),
            "codes": {"src": a[:n], "dst": a[n:]},
        }

    def swap(self, dst: jax.Array) -> Swap:
        features = self.shared(dst.astype(self.dtype))
        a, b = self.inter_a(features), self.inter_b(features)
        code = jnp.concatenate([a, a], axis=-1)
        (face_a, mask_a), (face_b, mask_b) = self.common_a(code), self.common_b(code)
        code_of_dst = jnp.concatenate([b, a], axis=-1)
        dst_masks = self.common_a(code_of_dst)[1], self.common_b(code_of_dst)[1]
        return self.rgb(face_a, face_b), self.mask(mask_a, mask_b), self.mask(*dst_masks)
