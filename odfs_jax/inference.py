"""A trained model in use: one pure function from dst's faces to src's, or from faces to masks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from odfs_jax.errors import UserError
from odfs_jax.faces.spec import FaceSpec, to_rgb
from odfs_jax.nets import build_mask_net, build_net, with_precision
from odfs_jax.nets.layers import Swap

# A network's likelihoods below which a pixel is hidden, and above which it is seen. In doubt it is
# hidden: a new face over a hand shows more than dst's own skin beside it.
HIDDEN, SEEN = 0.5, 0.9

Params = Any
# (params, dst faces [N, R, R, 3] in RGB) -> (src faces [N, S, S, 3], their masks [N, S, S, 1], the
# masks of dst's own faces, likewise, or None); pure, float32 in [0, 1]. A third argument [1], in
# [0, 1], may tell a network that can choose how much of the new face is src's.
Predict = Callable[..., Swap]


@dataclass(frozen=True)
class Swapper:
    """A trained model: the swap function, its parameters, and what conversion must know of it."""

    predict: Predict
    params: Params
    input_spec: FaceSpec  # of dst's faces, which `predict` takes
    output_spec: FaceSpec  # of src's faces, which it returns
    erode_modifier: float = 0.0  # per cent, added to the user's
    blur_modifier: float = 0.0  # per cent, added to the user's
    border: float = 0.0  # share of the face size that is faded out
    masked_hist_match: bool = True  # merge=hist_match counts only the face
    has_dst_mask: bool = False  # `predict` gives a mask of dst's own face too
    can_morph: bool = False  # `predict` takes the share of src in the new face


def make_swapper(
    model: Mapping[str, Any],
    params: Params,
    precision: str = "float32",
    conv_impl: str = "auto",
    morph: float | None = None,
) -> Swapper:
    """The swapper of a trained network.

    Args:
      model: the settings that it was trained with, the keys of `config.ModelConfig`.
      params: its parameters, float32.
      precision: "float32" or "bfloat16", of what is computed; faces and masks are float32.
      conv_impl: "auto", the fastest programs for this device, or "xla" for a `predict` that is to
        be exported or differentiated in forward mode (see `nets.kernels.dispatch`).
      morph: share of src in the new face, 0 to 1, of a network that can choose; None: all of it.

    Raises UserError for another precision, conv_impl or morph, or settings that fit no network.
    """
    net = with_precision(build_net(model, conv_impl), precision)
    can_morph = hasattr(net, "morph")
    if morph is not None:
        if not can_morph:
            raise UserError(f"morph={morph}: only model=amp can do that, not net={model['net']}")
        net = net.clone(morph=morph)
    input_spec = net.input_specs["dst"]

    def predict(params: Params, faces: jax.Array, morph: jax.Array | None = None) -> Swap:
        inputs = input_spec.to_input(faces)
        chosen = net if morph is None else net.clone(morph=morph)
        face, mask, dst_mask = chosen.apply({"params": params}, inputs, method="swap")
        return to_rgb(face), mask, dst_mask

    return Swapper(
        predict=predict,
        params=jax.tree.map(partial(_kernel_in, net.dtype), params),
        input_spec=input_spec,
        output_spec=net.output_spec,
        erode_modifier=model["erode_modifier"],
        blur_modifier=model["blur_modifier"],
        border=model["border"],
        masked_hist_match=model["masked_hist_match"],
        has_dst_mask=net.has_dst_mask,
        can_morph=can_morph,
    )


@dataclass(frozen=True)
class Masker:
    """A trained mask network: the function from faces to masks, and its parameters."""

    # (params, faces [N, R, R, 3] in RGB) -> masks [N, R, R, 1]; pure, float32 in [0, 1]
    predict: Callable[[Params, jax.Array], jax.Array]
    params: Params
    spec: FaceSpec  # of the faces, and of their masks


def make_masker(
    model: Mapping[str, Any], params: Params, precision: str = "float32", conv_impl: str = "auto"
) -> Masker:
    """The masker of a trained network; as `make_swapper`."""
    net = with_precision(build_mask_net(model, conv_impl), precision)

    def predict(params: Params, faces: jax.Array) -> jax.Array:
        likely = jax.nn.sigmoid(net.apply({"params": params}, faces))
        return jnp.clip((likely - HIDDEN) / (SEEN - HIDDEN), 0, 1)

    return Masker(predict, jax.tree.map(partial(_kernel_in, net.dtype), params), net.face_spec)


def _kernel_in(dtype: jnp.dtype, param: jax.Array) -> jax.Array:
    """A kernel in the type that layers take it in, once for all calls; biases stay float32."""
    return param.astype(dtype) if param.ndim > 1 else param
