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

from odfs_jax.faces.spec import FaceSpec, to_rgb
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
    input_spec: FaceSpec  # of dst's faces, which `predict` takes
    output_spec: FaceSpec  # of src's faces, which it returns
    erode_modifier: float = 0.0  # per cent, added to the user's
    blur_modifier: float = 0.0
    border: float = 0.0  # share of the face size that is faded out
    masked_hist_match: bool = True  # merge=hist_match counts only the face


def make_swapper(model: Mapping[str, Any], params: Params, precision: str = "float32") -> Swapper:
    """The swapper of the network that `model` (a `ModelConfig`) describes, with its `params`.

    It computes in `precision`. Raises UserError for one that there is not.
    """
    net = with_precision(build_net(model), precision)
    input_spec = net.input_specs["dst"]

    def predict(params: Params, faces: jax.Array) -> tuple[jax.Array, jax.Array]:
        face, mask = net.apply({"params": params}, input_spec.to_input(faces), method="swap")
        return to_rgb(face), mask

    return Swapper(
        predict=predict,
        params=jax.tree.map(partial(_kernel_in, net.dtype), params),
        input_spec=input_spec,
        output_spec=net.output_spec,
        erode_modifier=model["erode_modifier"],
        blur_modifier=model["blur_modifier"],
        border=model["border"],
        masked_hist_match=model["masked_hist_match"],
    )


def _kernel_in(dtype: jnp.dtype, param: jax.Array) -> jax.Array:
    """A kernel in the type that layers take it in, once for all calls; biases stay float32."""
    return param.astype(dtype) if param.ndim > 1 else param
