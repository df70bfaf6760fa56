"""What a swap network is to the rest of the program: what goes in and what must come out."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.nets.layers import (
    Codes,
    Decoder,
    Encoder,
    Features,
    Inter,
    Output,
    Swap,
    code_side,
    scaled,
)


class SwapNet(nn.Module, kw_only=True):
    """The declaration that training, preview and conversion follow; see docs/adding_a_model.md.

    Here both people's faces go in and come out in color, of `face_type` and `resolution`. A network
    of other faces overrides the properties.
    """

    face_type: FaceType
    resolution: int
    width: float = 1.0  # multiplies every layer width
    dtype: jnp.dtype = jnp.float32  # of what is computed; parameters and outputs are float32
    remat: bool = False  # the gradient computes the decoders' feature maps a second time
    conv_impl: str = "auto"  # or "xla": forward-mode derivatives, exports (kernels/dispatch.py)

    has_dst_mask = True  # `swap` tells dst's own mask; a network that does not rebuild it: False
    draws = False  # True: in training `__call__` also takes `keys`, one for each of src's faces

    @property
    def face_spec(self) -> FaceSpec:
        """The face that the model's settings describe."""
        return FaceSpec(self.face_type, self.resolution)

    @property
    def input_specs(self) -> dict[str, FaceSpec]:
        """The faces that go in, of "src" and of "dst"."""
        return {"src": self.face_spec, "dst": self.face_spec}

    @property
    def target_specs(self) -> dict[str, dict[str, FaceSpec]]:
        """The faces that must come out, of "src" and of "dst", by the names of `__call__`."""
        return {"src": {"src": self.face_spec}, "dst": {"dst": self.face_spec}}

    @property
    def output_spec(self) -> FaceSpec:
        """The face that `swap` returns."""
        return self.face_spec

    def check_settings(self) -> None:
        """Raises UserError naming a setting of the network that does not fit."""

    def blank(self) -> tuple[jax.Array, jax.Array]:
        """A black face [1,R,R,3] of src and one of dst, to initialize parameters with."""
        sizes = (self.input_specs[side].resolution for side in ("src", "dst"))
        return tuple(jnp.zeros((1, size, size, 3)) for size in sizes)

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output | Codes]:
        """Both people's faces rebuilt: {name: (face, mask)}, for each name in `target_specs`.

        `src` [N,R,R,3] and `dst` [M,R,R,3] are float32 in [0, 1], as `input_specs` says.

        A network may also return "codes": {"src": ..., "dst": ...}, what it makes of either face
        before the parts that tell the two people apart, both of one shape [N, ...]. A loss may use
        them; where none does, they cost nothing.
        """
        raise NotImplementedError

    def swap(self, dst: jax.Array) -> Swap:
        """src's face with the expression, pose and light of `dst` [N,R,R,3].

        Returns (face, mask, mask of dst's own face), float32 in [0, 1]. The face is as
        `output_spec` says, [N,S,S,3 or 1]; both masks are [N,S,S,1], in the face's pixels. The last
        one is None where `has_dst_mask` is False.
        """
        raise NotImplementedError


class CodeNet(SwapNet):
    """A swap network of one encoder, one or two codes, and decoders: what the 2018 models share.

    The fields are widths before `width` multiplies them. Subclasses choose in `setup` which of the
    parts below they have, and how many.
    """

    encoder: Sequence[int]  # features of each downscale
    bottleneck: int  # outputs of the first dense layer
    code: int  # channels of the second one's map
    code_up: int  # channels of the code
    decoder: Sequence[int]  # features of the face branch's upscales
    mask_decoder: Sequence[int]  # features of the mask branch's upscales
    subpixel: bool = False  # the last doubling is of a picture's pixels, not of a map (`Picture`)

    def make_features(self) -> Features:
        """The convolutions of the encoder."""
        return Features(scaled(self.encoder, self.width), self.conv_impl)

    def make_inter(self) -> Inter:
        """The dense layers that make a code of the features."""
        return Inter(*self._code_sizes(), self.conv_impl)

    def make_encoder(self) -> Encoder:
        """Features and dense layers in one: from a face to its code."""
        return Encoder(scaled(self.encoder, self.width), *self._code_sizes(), self.conv_impl)

    def make_decoder(self) -> Decoder:
        """From a code to a face in color and its mask."""
        widths = scaled(self.decoder, self.width), scaled(self.mask_decoder, self.width)
        return Decoder(*widths, subpixel=self.subpixel, remat=self.remat, conv_impl=self.conv_impl)

    def _code_sizes(self) -> tuple[int, ...]:
        sizes = scaled((self.bottleneck, self.code, self.code_up), self.width)
        side = code_side(self.resolution, self.decoder, subpixel=self.subpixel)
        return side, *sizes
