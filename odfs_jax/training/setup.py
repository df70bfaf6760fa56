"""The parts of a training run, built from its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

from odfs_jax.errors import UserError
from odfs_jax.losses import make_loss
from odfs_jax.nets import build_net, with_precision
from odfs_jax.nets.base import SwapNet
from odfs_jax.training.optimizer import make_optimizer
from odfs_jax.training.state import TrainState, init_state
from odfs_jax.training.step import make_step
from odfs_jax.training.weights import freeze

REMAT = ("none", "decoders")


@dataclass(frozen=True)
class Setup:
    """What the settings name; nothing lies on a device yet."""

    config: dict
    net: SwapNet
    loss: Callable
    tx: optax.GradientTransformation

    def fresh(self) -> TrainState:
        """The state of a new model."""
        return init_state(self.net, self.tx, self.config["seed"], self.config["ema"] is not None)

    def step(self, devices: list[jax.Device]) -> Callable:
        """The training step over `devices`."""
        return make_step(
            self.net,
            self.loss,
            self.tx,
            self.config["augment"],
            devices,
            accumulate=self.config["accumulate"],
            ema=self.config["ema"],
            steps=self.config["steps_per_dispatch"],
        )


def make_setup(config: Mapping[str, Any]) -> Setup:
    """The parts of a `TrainConfig`. Raises UserError naming the key that does not fit."""
    if config["remat"] not in REMAT:
        raise UserError(f"remat={config['remat']}: expected one of {', '.join(REMAT)}")
    if config["steps_per_dispatch"] < 1:
        raise UserError(f"steps_per_dispatch={config['steps_per_dispatch']}: expected 1 or more")
    if config["ema"] is not None and not 0 < config["ema"] < 1:
        raise UserError(f"ema={config['ema']}: expected a decay between 0 and 1, or null")
    net = with_precision(build_net(config["model"]), config["precision"])
    tx = make_optimizer(config["optimizer"], config["iterations"])
    return Setup(
        config=dict(config),
        net=net.clone(remat=config["remat"] == "decoders"),
        loss=make_loss(config["loss"]),
        tx=freeze(tx, config["freeze"]),
    )
