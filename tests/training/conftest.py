"""Training runs that are small enough to be real: tiny networks on a handful of faces."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from odfs_jax.config import compose
from odfs_jax.runtime.distributed import replicated
from odfs_jax.saved_model import on
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.step import NetState, TrainState
from odfs_jax.training.train import train

TINY = (
    "model.width=0.03125",
    "model.resolution=32",
    "batch_size=4",
    "optimizer.learning_rate=1e-3",
    "log_every=10",
    "preview_every=20",
)


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory, write_faceset) -> Callable[[], Path]:
    """A new workspace with seven faces of src and six of dst."""

    def make() -> Path:
        workspace = tmp_path_factory.mktemp("workspace")
        for side, count, seed in (("src", 7, 0), ("dst", 6, 1)):
            write_faceset(workspace / side / "aligned", count, seed=seed)
        return workspace

    return make


@pytest.fixture
def workspace(make_workspace) -> Path:
    return make_workspace()


@pytest.fixture(scope="session")
def overrides() -> Callable[..., list[str]]:
    """The settings of a tiny run in a workspace, as the command line takes them."""

    def settings(workspace: Path, *more: str) -> list[str]:
        return [f"workspace={workspace}", "hardware.compilation_cache=null", *TINY, *more]

    return settings


@pytest.fixture(scope="session")
def configure(overrides) -> Callable[..., DictConfig]:
    """The composed configuration of a tiny run."""

    def make(workspace: Path, *more: str) -> DictConfig:
        config = compose("train", overrides(workspace, *more))
        OmegaConf.resolve(config)
        return config

    return make


@pytest.fixture(scope="session")
def run_training(configure) -> Callable[..., Path]:
    """Trains in a workspace; returns the model's folder."""

    def run(workspace: Path, *more: str, **hooks: Callable) -> Path:
        config = configure(workspace, *more)
        train(config, **hooks)
        return workspace / "models" / config.name

    return run


@pytest.fixture(scope="session")
def save_state() -> Callable[..., None]:
    """save(folder, state, config, rows): a whole checkpoint, with `rows` as its loss history."""

    def save(folder: Path, state: TrainState, config: dict, rows: Sequence = ()) -> None:
        with closing(Checkpoints(folder)) as checkpoints:
            checkpoints.save(int(state.step), state, config, {}, History(list(rows)))
            checkpoints.finish()

    return save


@pytest.fixture(scope="session")
def read_checkpoint() -> Callable[..., tuple]:
    """(state with numpy leaves, settings, history) of the last checkpoint in a model's folder."""

    def read(folder: Path) -> tuple:
        checkpoints = Checkpoints(folder)
        config, history = checkpoints.config(), checkpoints.history()
        like = jax.eval_shape(make_objective(config).init_state)
        nets = {
            name: {part: value for part, value in vars(net).items() if value is not None}
            for name, net in like.nets.items()
        }
        parts = {"nets": nets, "key": like.key, "step": like.step}
        found = checkpoints.restore(on(replicated(jax.devices()[:1]), parts))
        checkpoints.close()
        nets = {name: NetState(**parts) for name, parts in found["nets"].items()}
        state = TrainState(nets, jax.random.key_data(found["key"]), found["step"])
        return jax.tree.map(np.asarray, state), config, history

    return read


@pytest.fixture(scope="session")
def finished_run(make_workspace, run_training) -> tuple[Path, list[str]]:
    """(folder, log lines) of 40 iterations in one go. To be read only."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("odfs_jax")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        folder = run_training(make_workspace(), "iterations=40")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return folder, lines
