"""What a swap network is to the rest of the program: what goes in and what must come out."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.nets.ops import Codes, Output


class SwapNet(nn.Module, kw_only=True):
    """The declaration that training, preview and conversion follow; see docs/adding_a_model.md.

    As it stands here: faces of `face_type` and `resolution`, in colour, in and out, of both people.
    A network of other pictures overrides the properties.
    """

    face_type: FaceType
    resolution: int
    width: float = 1.0  # multiplies every layer width
    dtype: jnp.dtype = jnp.float32  # of what is computed; parameters and outputs are float32
    remat: bool = False  # compute the decoders' feature maps anew for the gradient

    @property
    def face_spec(self) -> FaceSpec:
        """The face that the model's settings describe."""
        return FaceSpec(self.face_type, self.resolution)

    @property
    def input_specs(self) -> dict[str, FaceSpec]:
        """What is shown of "src" and of "dst"."""
        return {"src": self.face_spec, "dst": self.face_spec}

    @property
    def target_specs(self) -> dict[str, dict[str, FaceSpec]]:
        """What must be given back of "src" and of "dst", by the names of `__call__`'s outputs."""
        return {"src": {"src": self.face_spec}, "dst": {"dst": self.face_spec}}

    @property
    def output_spec(self) -> FaceSpec:
        """What `swap` gives."""
        return self.face_spec

    def blank(self) -> tuple[jax.Array, jax.Array]:
        """A black face [1,R,R,3] of src and one of dst, to learn shapes from."""
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

    def swap(self, dst: jax.Array) -> Output:
        """src's face with the expression, pose and light of `dst`, as `output_spec` says."""
        raise NotImplementedError
