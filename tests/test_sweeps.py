"""Hydra's sweeps: each job does its work where the launcher runs it, and says how it ended."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from odfs_jax import cli
from odfs_jax.errors import UserError
from odfs_jax.saved_model import latest_step

ROOT = Path(__file__).parents[1]
BASIC = "hydra._internal.core_plugins.basic_launcher"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """sweep(*overrides): the names that a sweep of `train` in `tmp_path` trains, in turn."""

    def run(*overrides):
        trained = []

        def train(config):
            if config.seed == 7:
                raise UserError("seed=7: not this one")
            trained.append(config.name)
            return config.seed / 10

        monkeypatch.setattr("odfs_jax.training.train.train", train)
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", f"workspace={tmp_path}", *overrides])
        return trained

    return run


def test_each_job_of_a_sweep_works(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = sweep("model=h64,df")
    cli.train()
    assert trained == ["h64", "df"]
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert (folder / "multirun.yaml").exists() and not (tmp_path / "multirun").exists()


def test_a_sweeper_gets_what_training_came_to(sweep, monkeypatch):
    """As Optuna does, which asks for the next settings by what it got for these."""
    launcher = Plugins.instance().class_name_to_class[f"{BASIC}.BasicLauncher"]  # as Hydra loads it
    got, plain = [], launcher.launch

    def launch(own, *arguments, **named):
        got.extend(returned := plain(own, *arguments, **named))
        return returned

    monkeypatch.setattr(launcher, "launch", launch)
    sweep("model=h64", "seed=1,2", "name=run_${hydra:job.num}")
    cli.train()
    assert [job.return_value for job in got] == [0.1, 0.2]


def test_two_jobs_of_one_name_are_refused(sweep, capsys):
    trained = sweep("model=h64", "batch_size=2,4")
    with pytest.raises(SystemExit) as ended:
        cli.train()
    assert ended.value.code == 2 and trained == ["h64"]
    assert "name=h64: another job of this sweep" in capsys.readouterr().err
    trained = sweep("model=h64", "batch_size=2,4", "name=run_${hydra:job.num}")
    cli.train()
    assert trained == ["run_0", "run_1"]


def test_a_failed_job_reaches_the_exit_code(sweep, capsys):
    trained = sweep("model=h64,df", "seed=7")
    with pytest.raises(SystemExit) as ended:
        cli.train()
    assert ended.value.code == 2 and trained == []
    assert "seed=7: not this one" in capsys.readouterr().err


def test_a_killed_worker_is_told_in_a_line(sweep, capsys, monkeypatch):
    lost_job = type("UncompletedJobError", (RuntimeError,), {"__module__": "submitit.core.utils"})

    def lost(config):
        raise lost_job("Job 22_1\nhas not produced any output (state: FAILED)")

    sweep("model=h64,df")
    monkeypatch.setattr("odfs_jax.training.train.train", lost)
    with pytest.raises(SystemExit) as ended:
        cli.train()
    assert ended.value.code == 2
    told = "odfs-train: Job 22_1 has not produced any output (state: FAILED)"
    assert told in capsys.readouterr().err.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"],
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"],
        pytest.param(
            ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10"],
            marks=pytest.mark.skipif(shutil.which("sbatch") is None, reason="no Slurm here"),
        ),
    ],
)
def test_launchers_train(tmp_path, write_faceset, launcher):
    """Their workers leave trained models behind, and nothing outside the workspace."""
    for seed, side in enumerate(("src", "dst")):
        write_faceset(tmp_path / side / "aligned", 2, seed=seed)
    tiny = ("model.width=0.01", "model.resolution=32", "batch_size=2", "iterations=2")
    settings = ("model=h64", "name=a,b", *tiny, f"workspace={tmp_path}", *launcher)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *settings]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    for name in ("a", "b"):
        assert latest_step(tmp_path / "models" / name) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"src", "dst", "models", "sweeps"}


@pytest.mark.slow
def test_optuna_finds_the_better_learning_rate(tmp_path, write_faceset):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    for seed, side in enumerate(("src", "dst")):
        write_faceset(tmp_path / side / "aligned", 2, seed=seed)
    tiny = ("model.width=0.01", "model.resolution=32", "batch_size=2", "iterations=30")
    optuna = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1")
    optuna += ("optimizer.learning_rate=choice(1e-9,1e-3)", "hydra/sweeper/sampler=grid")
    settings = ("model=h64", "name=run_${hydra:job.num}", *tiny, f"workspace={tmp_path}", *optuna)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *settings]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (found,) = (tmp_path / "sweeps").glob("*/optimization_results.yaml")
    assert OmegaConf.load(found).best_params == {"optimizer.learning_rate": 1e-3}
