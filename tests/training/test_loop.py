"""The steady loop keeps the device busy: nothing is read back by it, nothing waits for a disk."""

import threading
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.array import ArrayImpl  # where every read of a device's memory passes
from omegaconf import OmegaConf

from odfs_jax.errors import UserError
from odfs_jax.training import journal, loop
from odfs_jax.training.checkpoint import Checkpoints, load_for_inference
from odfs_jax.training.preview import make_preview
from odfs_jax.training.setup import make_setup


@pytest.fixture
def reads(monkeypatch):
    """The threads that read an array back to the host, in order."""
    found = []
    value = ArrayImpl._value

    def read(self):
        found.append(threading.current_thread())
        return value.fget(self)

    monkeypatch.setattr(ArrayImpl, "_value", property(read))
    return found


def test_nothing_is_transferred_in_the_steady_loop(workspace, run, saved, reads, monkeypatch):
    """Log lines and previews are due in it; only the journal's thread reads them back."""
    turn, in_loop = loop.Loop._turn, []

    def guarded(self, *args):
        before = len(reads)
        with jax.transfer_guard("disallow"):
            turn(self, *args)
        in_loop.extend(thread.name for thread in reads[before:])

    monkeypatch.setattr(loop.Loop, "_turn", guarded)
    folder = run(workspace, "iterations=12", "log_every=3", "preview_every=4")
    assert in_loop and all(name.startswith("journal") for name in in_loop)
    assert [step for step, _ in saved(folder)[2]] == [3, 6, 9, 12]


def test_the_guards_would_tell(reads):
    float(jnp.float32(3))
    assert reads == [threading.current_thread()]
    add = jax.jit(jnp.add)
    add(jnp.float32(1), jnp.float32(2))
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-dev"):
        add(jnp.float32(1), np.float32(2))


def test_the_preview_shows_the_saved_parameters(finished):
    """It is drawn while the loop goes on and gives the parameters' memory away."""
    folder, _ = finished
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    net = make_setup(config).net
    _, params, _ = load_for_inference(folder)
    expected = make_preview(net, loop._load_facesets(config, net))(params)
    shown = cv2.imread(str(folder / "preview.png"))[..., ::-1]
    assert np.abs(shown.astype(int) - np.asarray(expected)).max() <= 1


def test_a_checkpoint_is_written_behind_the_loops_back(tmp_path):
    """It is not there yet when the loop goes on, and is whole although the state is given away."""
    state = {"w": jax.jit(lambda key: jax.random.normal(key, (4096, 4096)))(jax.random.key(0))}
    expected = np.array(state["w"])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, {}, [])
    assert not (tmp_path / "checkpoints" / "1").exists()
    jax.block_until_ready(jax.jit(lambda w: w * 0, donate_argnums=0)(state["w"]))
    checkpoints.finish()
    found, *_ = checkpoints.restore(jax.eval_shape(lambda: {"w": jnp.zeros((4096, 4096))}))
    np.testing.assert_array_equal(found["w"], expected)
    checkpoints.close()


def test_several_steps_a_dispatch_are_those_steps(workspace, make_workspace, run, saved):
    """The same draws and, but for rounding, the same learning; lines come when one is due."""
    ours = run(workspace, "iterations=8", "log_every=3", "steps_per_dispatch=2")
    theirs = run(make_workspace(), "iterations=8", "log_every=8")
    (state, _, history), (other, _, whole) = saved(ours), saved(theirs)
    assert [step for step, _ in history] == [4, 6, 8]
    means = {term: sum(row[term] * n for (_, row), n in zip(history, (4, 2, 2), strict=True)) / 8
             for term in history[0][1]}  # fmt: skip
    assert means == pytest.approx(whole[0][1], rel=1e-4)
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
def test_dispatches_that_do_not_fit(workspace, run, change, message):
    with pytest.raises(UserError, match=message):
        run(workspace, "iterations=8", change)


def test_metrics_do_not_pile_up_on_the_device(tmp_path, monkeypatch):
    """Without log lines they are read in portions; the mean at the end is of all."""
    monkeypatch.setattr(journal, "WAITING", 3)
    kept = journal.Journal(Path(tmp_path), 4, 0, [])
    for number in range(8):
        kept.add({"loss": jnp.float32(number)})
        assert len(kept._waiting) < 3
    kept.add({"loss": jnp.arange(2.0) + 8})  # a dispatch of two steps
    kept.write(10)
    kept.finish()
    kept.close()
    assert kept.history == [[10, {"loss": 4.5}]]


def test_an_error_of_the_journals_thread_is_raised(tmp_path):
    kept = journal.Journal(Path(tmp_path), 4, 0, [])
    kept._later(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept.finish()
    kept.close()
