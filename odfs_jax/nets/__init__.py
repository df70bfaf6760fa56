"""Networks: flax.linen modules without I/O. `build_net` turns a model's settings into one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from odfs_jax.errors import UserError
from odfs_jax.nets.liae import Liae
from odfs_jax.nets.shared_encoder import SharedEncoder

# A fixed table: a config that comes with somebody's checkpoint must not import what it names.
NETS: dict[str, type[nn.Module]] = {
    "shared_encoder": SharedEncoder,
    "liae": Liae,
}


def build_net(model: Mapping[str, Any]) -> nn.Module:
    """The swap network of a `ModelConfig`. Raises UserError naming the key that does not fit."""
    if model["net"] not in NETS:
        raise UserError(f"model.net={model['net']}: expected one of {', '.join(sorted(NETS))}")
    net = NETS[model["net"]]
    fields = {f.name for f in dataclasses.fields(net)} - {"parent", "name"}
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in model["args"].items()}
    unknown = sorted(set(settings) - fields)
    if unknown:
        raise UserError(f"model.args.{unknown[0]}: {model['net']} has no such setting")
    if model["resolution"] % 16 or model["resolution"] <= 0:
        raise UserError(f"model.resolution={model['resolution']}: expected a multiple of 16")
    return net(resolution=model["resolution"], width=model["width"], **settings)
