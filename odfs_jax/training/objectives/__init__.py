"""Objectives: what a run learns. `make_objective` builds the one that the settings name."""

from collections.abc import Mapping
from typing import Any

from odfs_jax.errors import UserError
from odfs_jax.training.objectives.adversarial import Adversarial
from odfs_jax.training.objectives.autoencoder import Autoencoder
from odfs_jax.training.objectives.base import Objective
from odfs_jax.training.objectives.segmentation import Segmentation

OBJECTIVES: dict[str, type[Objective]] = {"autoencoder": Autoencoder, "segmentation": Segmentation}


def make_objective(config: Mapping[str, Any]) -> Objective:
    """The objective of a `TrainConfig`. Raises UserError naming the key that does not fit."""
    name = config["objective"]["name"]
    if name not in OBJECTIVES:
        raise UserError(f"objective.name={name}: expected one of {', '.join(sorted(OBJECTIVES))}")
    judged = config["discriminator"]["name"] != "none" or config["loss"]["true_face"]
    if name == "autoencoder" and judged:
        return Adversarial(config)  # an Autoencoder, and discriminators
    return OBJECTIVES[name](config)
