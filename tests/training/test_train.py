"""The steady loop keeps the device busy: nothing is read back by it, nothing waits for a disk."""

import threading
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.errors import UserError
from odfs_jax.saved_model import load_model
from odfs_jax.training import metrics
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.preview import make_preview


@pytest.fixture
def reads(monkeypatch):
    """The threads that read an array back to the host, in order."""
    found = []
    array = type(jnp.zeros(()))
    value = array._value  # every read of a device's memory passes here

    def read(self):
        found.append(threading.current_thread())
        return value.fget(self)

    monkeypatch.setattr(array, "_value", property(read))
    return found


def test_nothing_is_transferred_in_the_steady_loop(workspace, run_training, read_checkpoint, reads):
    """Log lines and previews are due in it; only the logger's thread reads them back."""
    in_loop = []

    def guarded(step):
        """From the first step of 13 on, what follows the others in the loop included."""
        calls, guard, before = 0, jax.transfer_guard("disallow"), 0

        def wrapped(state, batch):
            nonlocal calls, before
            calls += 1
            if calls == 1:
                before = len(reads)
                guard.__enter__()
            if calls == 13:
                guard.__exit__(None, None, None)
                in_loop.extend(thread.name for thread in reads[before:])
            return step(state, batch)

        return wrapped

    settings = ("iterations=13", "log_every=3", "preview_every=4")
    folder = run_training(workspace, *settings, wrap_step=guarded)
    assert in_loop and all(name.startswith("metrics") for name in in_loop)
    assert [step for step, _ in read_checkpoint(folder)[2].rows] == [3, 6, 9, 12, 13]


def test_the_guards_would_tell(reads):
    float(jnp.float32(3))
    assert reads == [threading.current_thread()]
    add = jax.jit(jnp.add)
    add(jnp.float32(1), jnp.float32(2))
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-dev"):
        add(jnp.float32(1), np.float32(2))


def test_the_preview_shows_the_saved_parameters(finished_run):
    """It is drawn while the loop goes on and gives the parameters' memory away."""
    folder, _ = finished_run
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    objective = make_objective(config)
    params = {"autoencoder": load_model(folder).params}
    expected = np.asarray(make_preview(objective, objective.load_facesets())(params))
    shown = cv2.imread(str(folder / "preview.png"))[-len(expected) :, :, ::-1]
    assert np.abs(shown.astype(int) - expected).max() <= 1


def test_a_checkpoint_is_written_behind_the_loops_back(tmp_path):
    """It is not there yet when the loop goes on, and is whole although the state is given away."""
    state = {"w": jax.jit(lambda key: jax.random.normal(key, (4096, 4096)))(jax.random.key(0))}
    expected = np.array(state["w"])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"nets": {"net": {"params": state}}}, {}, {}, History())
    assert not (tmp_path / "checkpoints" / "1").exists()
    jax.block_until_ready(jax.jit(lambda w: w * 0, donate_argnums=0)(state["w"]))
    checkpoints.finish()
    like = jax.eval_shape(lambda: {"w": jnp.zeros((4096, 4096))})
    found = checkpoints.restore({"nets": {"net": {"params": like}}})
    np.testing.assert_array_equal(found["nets"]["net"]["params"]["w"], expected)
    checkpoints.close()


@pytest.mark.slow
def test_several_steps_a_dispatch_are_those_steps(
    workspace, make_workspace, run_training, read_checkpoint
):
    """The same draws and, but for rounding, the same learning; lines come when one is due."""
    ours = run_training(workspace, "iterations=8", "log_every=3", "steps_per_dispatch=2")
    theirs = run_training(make_workspace(), "iterations=8", "log_every=8")
    (state, _, history), (other, _, whole) = read_checkpoint(ours), read_checkpoint(theirs)
    assert [step for step, _ in history.rows] == [4, 6, 8]
    counted = list(zip(history.rows, (4, 2, 2), strict=True))
    means = {term: sum(row[term] * n for (_, row), n in counted) / 8 for term in counted[0][0][1]}
    assert means == pytest.approx(whole.rows[0][1], rel=1e-4)
    for mine, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params),
                            strict=True):  # fmt: skip
        assert np.linalg.norm(mine - theirs) <= 1e-3 * max(1.0, np.linalg.norm(theirs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps_per_dispatch=0", "steps_per_dispatch=0: expected 1 or more"),
        pytest.param(
            "steps_per_dispatch=3",
            "iterations=8: expected 0 and a multiple of .*=3",
            marks=pytest.mark.slow,  # 15 s of compiling for a refusal
        ),
    ],
)
def test_dispatches_that_do_not_fit(workspace, run_training, change, message):
    with pytest.raises(UserError, match=message):
        run_training(workspace, "iterations=8", change)


def test_metrics_do_not_pile_up_on_the_device(tmp_path, monkeypatch):
    """Without log lines they are read in portions; the mean at the end is of all."""
    monkeypatch.setattr(metrics, "WAITING", 3)
    logger = metrics.MetricLogger(Path(tmp_path), 4, 0, History())
    for number in range(8):
        logger.add({"loss": jnp.float32(number)})
        assert len(logger._waiting) < 3
    logger.add({"loss": jnp.arange(2.0) + 8})  # a dispatch of two steps
    logger.write(10)
    logger.finish()
    logger.close()
    assert logger.history.rows == [[10, {"loss": 4.5}]]


def test_an_error_of_the_loggers_thread_is_raised(tmp_path):
    logger = metrics.MetricLogger(Path(tmp_path), 4, 0, History())
    logger._later(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logger.finish()
    logger.close()
