"""What a run learns: its networks and their optimizers, its samples, its losses, its preview."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from odfs_jax.data import augment
from odfs_jax.data.batches import Batch
from odfs_jax.data.faceset import Faceset, load_faceset, warn_unless_alike
from odfs_jax.data.sampling import SAMPLINGS, evenly_spread
from odfs_jax.errors import UserError
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.runtime.devices import free_memory
from odfs_jax.training.optimizers import make_optimizer, make_thin
from odfs_jax.training.partial import freeze, patterns_of
from odfs_jax.training.step import Losses, Metrics, Step, TrainState, init_state, make_step

REMAT = ("none", "decoders")

# side -> (the network's inputs [B,R,R,3], {name of an output: its targets}); see `augment.sample`
Samples = dict[str, tuple[jax.Array, dict[str, dict[str, jax.Array]]]]

HELD_OUT = 0.05  # share of each side's faces, where `evaluate_every` is given and no share
MEASURED = 32  # faces of each side that a network is measured on, at most
HOST_SHARE = 0.4  # of the free memory that facesets may take; twice that while they are read


class Objective(ABC):
    """The part of a run that a new kind of training replaces; step, loop and checkpoints stay.

    A subclass sets the attributes below in its `__init__` and implements the abstract methods. What
    it gets from `config`, a `TrainConfig`, it checks with UserErrors that name the key.
    """

    config: dict[str, Any]
    nets: dict[str, nn.Module]  # the networks, by name
    optimizers: dict[str, optax.GradientTransformation]  # one of its own for each network
    exported: str  # the network that previews and conversion use; it alone may have a mean
    input_specs: dict[str, FaceSpec]  # side -> what is drawn of its faces as input, warped
    target_specs: dict[str, dict[str, FaceSpec]]  # side -> output's name -> what it must give back
    masks: tuple[str, ...]  # that come with every target; keys of `faceset.MASKS`
    # After `load_facesets`:
    held_out: dict[str, Faceset]  # never trained on, to measure networks on
    landmarkers: frozenset[str]  # what found the points of all faces

    @abstractmethod
    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises UserError naming the key that does not fit."""

    @abstractmethod
    def init_params(self, key: jax.Array) -> dict[str, dict]:
        """Fresh parameters, by network."""

    @abstractmethod
    def losses(
        self, params: dict[str, dict], batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ) -> tuple[dict[str, jax.Array], Metrics]:
        """({network: the scalar that it minimizes}, metrics) of a batch at iteration `step`.

        `params` are by network, `keys` has one for every sample of a side. All scalars are means
        over the batch. A network is updated by the gradient of its own scalar only; where that
        scalar reads another network, `stop_gradient` on what it must not move saves work.

        A metric whose name has a slash, "src_face/dssim", is a part of the one before the slash: it
        is for TensorBoard, and not in the log line.
        """

    @abstractmethod
    def preview(self, params: dict[str, dict], inputs: dict[str, jax.Array]) -> list[jax.Array]:
        """The columns of the preview, each [N, R, R, 1 or 3], for `inputs` [N, R, R, 3] by side."""

    @abstractmethod
    def captions(self) -> list[str]:
        """What each column of the preview is, in a word or two."""

    def make_measure(self) -> Callable[[dict[str, dict]], Metrics] | None:
        """measure(params by network) -> metrics of faces that are never trained on, or None.

        Log lines have them, as often as `evaluate_every` says. `load_facesets` comes before it.
        """
        return None

    def check_run(self) -> None:
        """Raises UserError for a setting of the run that no objective can follow."""
        config = self.config
        if config["remat"] not in REMAT:
            raise UserError(f"remat={config['remat']}: expected one of {', '.join(REMAT)}")
        if config["steps_per_dispatch"] < 1:
            steps = config["steps_per_dispatch"]
            raise UserError(f"steps_per_dispatch={steps}: expected 1 or more")
        if config["ema"] is not None and not 0 < config["ema"] < 1:
            raise UserError(f"ema={config['ema']}: expected a decay between 0 and 1, or null")

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """What conversion must know beside settings and parameters, as JSON; see `SavedModel`."""

    @property
    def sides(self) -> tuple[str, ...]:
        """The facesets that are trained on, in the order of the preview's columns."""
        return tuple(self.input_specs)

    def optimizer(self, net: str, config: Mapping[str, Any]) -> optax.GradientTransformation:
        """The optimizer of an `OptimizerConfig` for the network `net`, frozen where `freeze` says.

        `exported` and `nets` must be set.
        """
        tx = make_optimizer(config, self.config["iterations"])
        return freeze(tx, patterns_of(net, self.config["freeze"], self.nets, self.exported))

    def init_state(self) -> TrainState:
        """The state of a new run."""
        key = jax.random.key(self.config["seed"])
        params = self.init_params(jax.random.fold_in(key, 0))
        averaged = () if self.config["ema"] is None else (self.exported,)
        return init_state(params, self.optimizers, averaged, jax.random.fold_in(key, 1))

    @cached_property
    def state_shapes(self) -> TrainState:
        """The shapes and types of `init_state`, for which all layers are traced once."""
        return jax.eval_shape(self.init_state)

    def make_step(self, devices: list[jax.Device]) -> Step:
        """The training step over `devices`, those of all processes."""
        return self.step_of(self.losses, devices)

    def step_of(self, losses: Losses, devices: list[jax.Device]) -> Step:
        """A step over `devices` that minimizes `losses`, with the settings of the run."""
        return make_step(
            losses,
            self.optimizers,
            devices,
            accumulate=self.config["accumulate"],
            ema=self.config["ema"],
            steps=self.config["steps_per_dispatch"],
            thin=make_thin(self.config["optimizer"]),
        )

    @property
    def held_out_share(self) -> float:
        """The share of each side's faces that is never trained on."""
        share = self.config["objective"]["held_out"]
        if share is None:
            return HELD_OUT if self.config["evaluate_every"] else 0.0
        return share

    def load_facesets(self) -> dict[str, Faceset]:
        """The aligned faces of all sides to train on, as the networks take them.

        The last ones in time of each side are `held_out` instead: their neighbours in a clip would
        be nearly the same pictures. Raises UserError.
        """
        data, pretrain = self.config["data"], self.config["pretrain"]
        if not pretrain and sorted(data["sides"]) != sorted(self.sides):
            raise UserError(f"data.sides={data['sides']}: training needs data=src_dst")
        if (sampling := data["sampling"]) not in SAMPLINGS:
            raise UserError(f"data.sampling={sampling}: expected one of {', '.join(SAMPLINGS)}")
        limit = data["memory_gb"]
        room = HOST_SHARE * free_memory(jax.local_devices(backend="cpu")[:1])
        room = room if limit is None else limit * 1e9
        facesets, read = {}, {}
        for side, spec in self.input_specs.items():
            people = "pretrain" if pretrain else side
            folder = Path(data["src" if pretrain else side]["aligned"])
            targets = tuple(self.target_specs[side].values())
            if (folder, spec, targets) not in read:  # the same people for both sides: once
                faceset = load_faceset(
                    folder, people, spec, targets, self.masks, brows=data["brows"], limit=room
                )
                room -= faceset.images.nbytes if isinstance(faceset.images, np.ndarray) else 0
                read[folder, spec, targets] = faceset
            facesets[side] = read[folder, spec, targets]
        finders = {side: faceset.landmarkers for side, faceset in facesets.items()}
        warn_unless_alike(finders, "extract both with one landmarks=")
        self.landmarkers = frozenset().union(*finders.values())
        self.held_out = {}
        if not (share := self.held_out_share):
            return facesets
        parts = {}  # one faceset may be that of both sides
        for side, faceset in facesets.items():
            order = np.argsort(faceset.ranks)
            kept = len(order) - min(round(share * len(order)), len(order) - 1)
            if id(faceset) not in parts:
                parts[id(faceset)] = [
                    faceset.part(np.sort(part)) for part in (order[:kept], order[kept:])
                ]
            facesets[side], self.held_out[side] = parts[id(faceset)]
        return facesets

    def measured_batch(self) -> Batch | None:
        """At most MEASURED faces of each side's `held_out`, evenly spread; None without any."""
        batch = {}
        for side, faceset in self.held_out.items():
            chosen = evenly_spread(len(faceset), min(MEASURED, len(faceset)))
            batch[side] = faceset.images[chosen], faceset.store_from_model[chosen]
        return batch if batch and all(len(images) for images, _ in batch.values()) else None

    def sample(self, batch: Batch, keys: dict[str, jax.Array], step: jax.Array) -> Samples:
        """Inputs and targets of a batch, drawn from its stored faces as iteration `step` does."""
        return self.draw(batch, keys, augment.at(self.config["augment"], step))

    def draw(
        self, batch: Batch, keys: dict[str, jax.Array], augment_cfg: Mapping[str, Any]
    ) -> Samples:
        """Inputs and targets of a batch, drawn from its stored faces as `augment_cfg` says."""

        def of_side(side: str) -> tuple:
            own = augment.of_side(augment_cfg, side)

            def one(key: jax.Array, image: jax.Array, store_from_model: jax.Array, *other):
                return augment.sample(
                    key,
                    image,
                    store_from_model,
                    input_spec=self.input_specs[side],
                    target_specs=self.target_specs[side],
                    masks=self.masks,
                    augment_cfg=own,
                    lender=(*other, self.input_specs["dst"]) if other else None,
                )

            others = () if own["color_transfer"] == "none" else batch["dst"]
            return jax.vmap(one)(keys[side], *batch[side], *others)

        return {side: of_side(side) for side in batch}
