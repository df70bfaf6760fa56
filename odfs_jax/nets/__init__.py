"""Networks: flax.linen modules without I/O. `build_net` makes one of a model's settings.

`build_mask_net` does for a network that makes masks.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from odfs_jax.errors import UserError
from odfs_jax.faces.types import FaceType
from odfs_jax.nets.amp import Amp
from odfs_jax.nets.avatar import Avatar
from odfs_jax.nets.base import SwapNet
from odfs_jax.nets.kernels.dispatch import CONV_IMPLS
from odfs_jax.nets.liae import Liae
from odfs_jax.nets.masks import MaskNet, MaskUnet, Xseg
from odfs_jax.nets.miaef import Miaef
from odfs_jax.nets.saehd import Saehd
from odfs_jax.nets.shared_encoder import SharedEncoder

# A fixed table: a config that comes with somebody's checkpoint must not import what it names.
NETS: dict[str, type[SwapNet]] = {
    "shared_encoder": SharedEncoder,
    "liae": Liae,
    "miaef": Miaef,
    "avatar": Avatar,
    "saehd": Saehd,
    "amp": Amp,
}
MASK_NETS: dict[str, type[MaskNet]] = {"mask_unet": MaskUnet, "xseg": Xseg}
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}  # of what is computed
LARGEST, MOST_LAYERS, WIDEST = 8192, 16, 64.0  # of a setting; a model may be a stranger's
SHARED = ("face_type", "resolution", "width")  # settings of every network

Net = TypeVar("Net", SwapNet, MaskNet)


def build_net(model: Mapping[str, Any], conv_impl: str = "auto") -> SwapNet:
    """The swap network that a run's `model` settings describe.

    Args:
      model: "net" (a key of NETS), "args" (that network's own settings), "face_type", "resolution"
        and "width"; other keys are not read.
      conv_impl: "auto", the fastest programs for this device, or "xla", plain ones for forward-mode
        derivatives and exports (see `kernels.dispatch`). The parameters are the same.

    Raises UserError naming the setting that does not fit.
    """
    built = _build(NETS, SwapNet, model, conv_impl)
    _check_specs(built)
    return built


def build_mask_net(model: Mapping[str, Any], conv_impl: str = "auto") -> MaskNet:
    """The mask network that a run's `model` settings describe, "net" a key of MASK_NETS.

    All else is as in `build_net`.
    """
    return _build(MASK_NETS, MaskNet, model, conv_impl)


def _build(
    table: Mapping[str, type[Net]], base: type[Net], model: Mapping[str, Any], conv_impl: str
) -> Net:
    if conv_impl not in CONV_IMPLS:
        raise UserError(f"conv_impl={conv_impl}: expected one of {', '.join(CONV_IMPLS)}")
    if model["net"] not in table:
        raise UserError(f"model.net={model['net']}: expected one of {', '.join(sorted(table))}")
    net, args = table[model["net"]], model["args"]
    fields = {f.name: f for f in dataclasses.fields(net)}
    own = fields.keys() - {f.name for f in dataclasses.fields(base)}
    needed = {name for name in own if fields[name].default is dataclasses.MISSING}
    if unknown := sorted(args.keys() - own):
        raise UserError(f"model.args.{unknown[0]}: {model['net']} has no such setting")
    if missing := sorted(needed - args.keys()):
        raise UserError(f"model.args.{missing[0]}: {model['net']} needs this setting")
    built = net(
        conv_impl=conv_impl,
        **{name: _setting(f"model.{name}", fields[name].type, model[name]) for name in SHARED},
        **{name: _setting(f"model.args.{name}", fields[name].type, args[name]) for name in args},
    )
    built.check_settings()
    return built


def with_precision(net: Net, precision: str) -> Net:
    """`net` computing in `precision`. Raises UserError for one that is not in PRECISIONS."""
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision}: expected one of {', '.join(PRECISIONS)}")
    return net.clone(dtype=PRECISIONS[precision])


def _setting(key: str, kind: Any, value: Any) -> Any:
    """A YAML file's `value` in the type of a network's field. Raises UserError naming `key`."""
    if kind is FaceType:
        fit = [face_type for face_type in FaceType if face_type.turns]
        if value not in fit:
            raise UserError(f"{key}={value}: expected one of {', '.join(fit)}")
        return FaceType(value)
    if kind == Sequence[int]:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if not is_list or not 1 <= len(value) <= MOST_LAYERS:
            raise UserError(f"{key}={value}: expected a list of 1 to {MOST_LAYERS} whole numbers")
        return tuple(_setting(key, int, item) for item in value)
    if kind is int:
        if type(value) is not int or not 1 <= value <= LARGEST:
            raise UserError(f"{key}={value}: expected a whole number from 1 to {LARGEST}")
        if key.endswith("resolution") and value % 16:
            raise UserError(f"{key}={value}: expected a multiple of 16")
    elif kind is float:
        if type(value) not in (int, float) or not 0 < value <= WIDEST:
            raise UserError(f"{key}={value}: expected a number above 0, up to {WIDEST}")
    elif kind in (bool, str) and type(value) is not kind:
        raise UserError(f"{key}={value}: expected a {kind.__name__}")
    return value


@functools.cache
def _check_specs(net: SwapNet) -> None:
    """Raises UserError unless the network's outputs have the shapes that it declares.

    Nor may the swap show less of dst's face than the network reads, which would leave a gap.
    Remembered: tracing takes a while, and a process builds the same network again and again.
    """
    targets = (spec for specs in net.target_specs.values() for spec in specs.values())
    kinds = {spec.face_type for spec in (*net.input_specs.values(), *targets)}
    is_one_fit = len({kind.is_dfl for kind in kinds}) == 1
    if len(kinds) > 1 and (FaceType.DFL_HEAD in kinds or not is_one_fit):
        raise UserError(
            f"model.face_type: {' and '.join(sorted(kinds))} in one network; a face has no fixed "
            "place in one of them when seen from the other"
        )
    dst, swap = net.input_specs["dst"].face_type, net.output_spec.face_type
    if not swap.contains(dst):
        raise UserError(f"model.face_type={swap}: the network sees more of dst, a {dst} face")
    outputs, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), *net.blank())
    for name, spec in (item for specs in net.target_specs.values() for item in specs.items()):
        size = spec.resolution
        declared = (1, size, size, 1 if spec.gray else 3), (1, size, size, 1)
        found = tuple(part.shape for part in outputs[name])
        if found != declared:
            raise UserError(
                f"model.resolution and model.args do not fit each other: {name} (face, mask) would "
                f"be {found}, not {declared}; every decoder needs as many widths as its sizes ask"
            )
