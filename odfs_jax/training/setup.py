"""The parts of a training run, built from its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import optax

from odfs_jax.losses import make_loss
from odfs_jax.nets import build_net
from odfs_jax.training.optimizer import make_optimizer
from odfs_jax.training.state import TrainState, init_state
from odfs_jax.training.step import make_step


@dataclass(frozen=True)
class Setup:
    """What the settings name; nothing lies on a device yet."""

    config: dict
    net: nn.Module
    loss: Callable
    tx: optax.GradientTransformation

    def fresh(self) -> TrainState:
        """The state of a new model."""
        return init_state(
            self.net, self.tx, self.config["model"]["resolution"], self.config["seed"]
        )

    def step(self, devices: list[jax.Device]) -> Callable:
        """The training step over `devices`."""
        return make_step(self.net, self.loss, self.tx, self.config["augment"], devices)


def make_setup(config: Mapping[str, Any]) -> Setup:
    """The parts of a `TrainConfig`. Raises UserError naming the key that does not fit."""
    return Setup(
        config=dict(config),
        net=build_net(config["model"]),
        loss=make_loss(config["loss"]),
        tx=make_optimizer(config["optimizer"], config["iterations"]),
    )
