"""What extract, convert, the preview and export share: cut faces out, swap them, lay them back.

Pictures are NHWC, float32 in [0, 1] unless said. A matrix [2, 3] maps (x, y, 1) of the picture to
(x, y) of the model's face; integer coordinates are pixel centres in both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from odfs_jax.faces.spec import View, colour
from odfs_jax.faces.warp import warp_affine
from odfs_jax.nets import build_net, with_precision

T = TypeVar("T")

Params = Any
# (params, dst faces [N, R, R, 3] in RGB) -> (src faces [N, S, S, 3], masks [N, S, S, 1]); pure.
Predict = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Swapper:
    """A trained model as conversion needs it: the swap function and what its faces look like."""

    predict: Predict
    params: Params
    seen: View  # of dst, what `predict` takes
    made: View  # of src, what it gives
    erode_modifier: float = 0.0  # per cent, added to the user's
    blur_modifier: float = 0.0
    border: float = 0.0  # share of the face size that is faded out
    masked_hist_match: bool = True  # merge=hist_match counts only the face


def make_swapper(model: Mapping[str, Any], params: Params, precision: str = "float32") -> Swapper:
    """The swapper of the network that `model` (a `ModelConfig`) describes, with its `params`.

    It computes in `precision`. Raises UserError for one that there is not.
    """
    net = with_precision(build_net(model), precision)
    seen = net.inputs["dst"]

    def predict(params: Params, faces: jax.Array) -> tuple[jax.Array, jax.Array]:
        face, mask = net.apply({"params": params}, seen.taken_in(faces), method="swap")
        return colour(face), mask

    return Swapper(
        predict=predict,
        params=jax.tree.map(partial(_kernel_in, net.dtype), params),
        seen=seen,
        made=net.swapped,
        erode_modifier=model["erode_modifier"],
        blur_modifier=model["blur_modifier"],
        border=model["border"],
        masked_hist_match=model["masked_hist_match"],
    )


def _kernel_in(dtype: jnp.dtype, param: jax.Array) -> jax.Array:
    """A kernel in the type that layers take it in, once for all calls; biases stay float32."""
    return param.astype(dtype) if param.ndim > 1 else param


def crop_faces(images: jax.Array, matrices: jax.Array, size: int, supersample: int) -> jax.Array:
    """Faces [N, size, size, C] out of `images` [N, H, W, C], float or uint8; edges are replicated.

    Each output pixel is the mean of `supersample`² bilinear reads spread evenly over it, so that
    nothing aliases while a face is at most about `supersample` times larger in the picture.
    `matrices` [N, 2, 3] map picture to face.
    """

    def crop(image: jax.Array, matrix: jax.Array) -> jax.Array:
        return warp_affine(_unit(image), inverse(matrix), size, size, supersample)

    return jax.vmap(crop)(images, matrices)


def paste_faces(
    faces: jax.Array,
    matrices: jax.Array,
    height: int,
    width: int,
    *,
    supersample: int = 1,
    enlarge: int = 1,
) -> jax.Array:
    """`faces` [N, R, R, C] laid into pictures: [N, height, width, C], edges replicated.

    `matrices` [N, 2, 3] map picture to face, as in `crop_faces`. A face that is larger in the
    picture is first enlarged `enlarge` times (Lanczos, clipped to [0, 1]) and is then sharper than
    bilinear reads alone leave it; one that is smaller needs `supersample`.
    """
    if enlarge > 1:
        count, rows, cols, channels = faces.shape
        shape = (count, rows * enlarge, cols * enlarge, channels)
        faces = jnp.clip(jax.image.resize(faces, shape, "lanczos3"), 0.0, 1.0)
        centre = jnp.array([0.0, 0.0, (enlarge - 1) / 2])  # pixel edges, not centres, stay put
        matrices = matrices * enlarge + centre[None, None, :]

    def paste(face: jax.Array, matrix: jax.Array) -> jax.Array:
        return warp_affine(face, matrix, height, width, supersample)

    return in_groups(jax.vmap(paste), 1, faces, matrices)


def in_groups(function: Callable[..., T], group: int, *arrays: jax.Array) -> T:
    """`function` of `arrays` [n, ...], by entry; on a CPU of `group` of their entries at a time.

    XLA:CPU fuses what makes an array into each place that reads it, and so computes it again there.
    Here `arrays` are computed before, and results before anything reads them.
    """
    if jax.default_backend() != "cpu":
        return function(*arrays)
    parts = [array.reshape(-1, group, *array.shape[1:]) for array in arrays]
    done = jax.lax.map(lambda part: function(*part), parts)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), done)


def inverse(matrix: jax.Array) -> jax.Array:
    """The inverse of an affine matrix [2, 3]."""
    (a, b, c), (d, e, f) = matrix
    linear = jnp.array([[e, -b], [-d, a]]) / (a * e - b * d)
    shift = -jnp.stack([linear[0, 0] * c + linear[0, 1] * f, linear[1, 0] * c + linear[1, 1] * f])
    return jnp.concatenate([linear, shift[:, None]], axis=1)


def _unit(image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image
