"""Every model on the synthetic actors: trained, stopped, resumed and converted with."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import compose, config_dir
from odfs_jax.conversion import convert as conversion
from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.types import FaceType
from odfs_jax.nets import build_net
from odfs_jax.runtime.distributed import replicated
from odfs_jax.saved_model import load_model
from odfs_jax.training.checkpoint import Checkpoints, start
from odfs_jax.training.history import History
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.objectives.autoencoder import Autoencoder
from odfs_jax.training.step import Step

PICTURES = Path(__file__).parents[1] / "extraction" / "data"  # of ada and ben, with exact points
MASKS = ("facemask", "facemask_128", "xseg")  # which swap no face: test_segmentation.py
MODELS = sorted(
    file.stem for file in (Path(config_dir()) / "model").glob("*.yaml") if file.stem not in MASKS
)
SIZE = 128  # of the aligned faces

# The least that still has every part: 32 pixels, of AVATAR 16 in and 32 out; layers of 4 channels,
# so that models of one network are the same program, compiled once.
TINY = ("model.width=0.001", "model.resolution=32", "batch_size=2", "log_every=2")
RESUMED = ("amp", "avatar", "h64", "liaef128", "miaef128", "saehd")  # one of each network
RUNS = {model: [f"model={model}"] for model in MODELS}
RUNS["avatar"] += ["model.args.small_resolution=16"]
RUNS["liaef128yaw"] = ["model=liaef128", "data.sampling=yaw_matched", "name=liaef128yaw"]
SLOW = set(RUNS) - {"h64"}  # test_every_preset_trains_resumes_and_converts has them all


def write_aligned(path: Path, picture: Path, known: dict, index: int) -> None:
    """The full face of a picture whose points are known, without detection."""
    image = np.ascontiguousarray(cv2.imread(str(picture))[..., ::-1])
    landmarks = np.array(known["landmarks"])
    matrix = alignment_matrix(landmarks, FaceType.FULL, SIZE)
    height, width = image.shape[:2]
    rect = (0.0, 0.0, float(width), float(height))
    source = Source(picture.name, index, None, width, height, rect, landmarks)
    face = FaceData(
        face_type=FaceType.FULL,
        size=SIZE,
        landmarks=transform(matrix, landmarks),
        source=source,
        pose=Pose(*known["pose"]),
        detector="none",
        landmarker="truth",
        score=1.0,
    )
    write_face(path, crop_face(image, matrix, SIZE), face)


@pytest.fixture(scope="module")
def actors(tmp_path_factory) -> Path:
    """A workspace: ada is src, ben is dst; two frames of him."""
    workspace = tmp_path_factory.mktemp("actors")
    truth = json.loads((PICTURES / "truth.json").read_text())
    for side, person in (("src", "ada"), ("dst", "ben")):
        (workspace / side / "aligned").mkdir(parents=True)
        for index, picture in enumerate(sorted(PICTURES.glob(f"{person}_*.jpg"))):
            shutil.copy(picture, workspace / side)
            aligned = workspace / side / "aligned" / f"{picture.stem}_0.png"
            write_aligned(aligned, picture, truth[picture.name], index)
    return workspace


@pytest.fixture
def swap(monkeypatch):
    """Converts in a workspace, with masks made solid: a few iterations teach none."""

    def clear(*loaded):
        model = load_model(*loaded)
        params = jax.tree.map(lambda a: a + 6 if a.shape == (1,) else a, model.params)
        return replace(model, params=params)

    monkeypatch.setattr(conversion, "load_model", clear)

    def go(workspace: Path, name: str) -> dict[str, np.ndarray]:
        settings = [f"workspace={workspace}", f"name={name}", "hardware.compilation_cache=null"]
        config = compose("convert", ["batch_size=2", *settings])
        OmegaConf.resolve(config)
        conversion.convert(config)
        result = workspace / "result"
        frames = {file.stem: cv2.imread(str(file)) for file in result.glob("*.png")}
        shutil.rmtree(result)
        return frames

    return go


@pytest.fixture(scope="module")
def programs() -> Callable[[Autoencoder], tuple[Callable, Step]]:
    """(a new run's state, its step), one for all whose parameters and losses are the same."""
    known = {}

    def find(objective: Autoencoder) -> tuple[Callable, Step]:
        key = str((type(objective.net), objective.state_shapes, objective.config["loss"]))
        if key not in known:
            copies = replicated(jax.devices()[:1])
            init = jax.jit(objective.init_state, out_shardings=copies)
            known[key] = init, objective.make_step(jax.devices()[:1])
        return known[key]

    return find


@pytest.mark.parametrize("name", MODELS)
def test_every_preset_trains_resumes_and_converts(name, actors, configure, programs, swap):
    config = OmegaConf.to_container(configure(actors, *RUNS[name], *TINY, f"name=tiny_{name}"))
    objective, folder = make_objective(config), actors / "models" / config["name"]
    init, step = programs(objective)
    batch = {
        side: (faces.images[None, :2], faces.store_from_model[None, :2])
        for side, faces in objective.load_facesets().items()
    }
    state, outputs = init(), {n for views in objective.target_specs.values() for n in views}

    with closing(Checkpoints(folder)) as checkpoints:
        state, metrics = step(state, batch)
        assert outputs <= {name.rpartition("_")[0] for name in metrics}
        assert np.isfinite(list(metrics.values())).all()
        checkpoints.save(1, state, config, objective.metadata(), History())
        checkpoints.finish()
        state, _ = step(state, batch)
        unbroken = jax.tree.map(np.asarray, state.params)
        resumed, _ = start(checkpoints, objective, jax.devices()[:1])
    resumed, _ = step(resumed, batch)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, unbroken)

    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    check_swapped(actors, swap(actors, config["name"]))


def check_swapped(workspace: Path, swapped: dict[str, np.ndarray]) -> None:
    """Both frames of ben came out, changed in a part of each."""
    assert sorted(swapped) == ["ben_010", "ben_100"]
    for file, frame in swapped.items():
        before = cv2.imread(str(workspace / "dst" / f"{file}.jpg"))
        assert 0.02 < (frame != before).any(-1).mean() < 0.5


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in RUNS]
)
def test_a_model_trains_resumes_and_converts(name, actors, run_training, read_checkpoint, swap):
    settings = (*RUNS[name], *TINY)
    targets = [2, 4] if name in RESUMED else [2]
    for target in targets:
        folder = run_training(actors, *settings, f"iterations={target}")
    state, config, history = read_checkpoint(folder)
    net = build_net(config["model"])
    assert int(state.step) == targets[-1] and [number for number, _ in history.rows] == targets
    outputs = {name for views in net.target_specs.values() for name in views}
    for _, losses in history.rows:
        assert {name.rpartition("_")[0] for name in losses} == outputs
        assert np.isfinite(list(losses.values())).all()
    columns = len(outputs) + len(net.input_specs) + 1
    preview = cv2.imread(str(folder / "preview.png"))
    assert preview.shape[0] > 4 * 32 and preview.shape[1] == columns * 32
    assert len(make_objective(config).captions()) == columns

    check_swapped(actors, swap(actors, name))


def test_a_checkpoint_without_named_networks_converts(actors, swap):
    """One that the code of 9245833 wrote: test_old_checkpoint.py."""
    asset = Path(__file__).parents[1] / "assets" / "checkpoint_9245833"
    shutil.copytree(asset, actors / "models" / "old")
    check_swapped(actors, swap(actors, "old"))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_model_trains_resumes_and_converts_at_full_width(
    model, actors, run_training, read_checkpoint, swap, tmp_path
):
    workspace = tmp_path / "actors"
    shutil.copytree(actors, workspace, ignore=shutil.ignore_patterns("models"))
    resolution = compose("train", [f"model={model}"]).model.resolution
    full = ("model.width=1", f"model.resolution={resolution}", "batch_size=2", "backups=0")
    for target in (2, 3):
        folder = run_training(workspace, f"model={model}", *full, f"iterations={target}")
    state, _, history = read_checkpoint(folder)
    assert int(state.step) == 3 and [number for number, _ in history.rows] == [2, 3]
    assert np.isfinite([list(losses.values()) for _, losses in history.rows]).all()
    check_swapped(workspace, swap(workspace, model))


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_stopped_and_resumed_is_unbroken(name, actors, run_training, read_checkpoint, tmp_path):
    states = []
    for targets in ([2, 4], [4]):
        workspace = tmp_path / str(len(targets))
        shutil.copytree(actors, workspace, ignore=shutil.ignore_patterns("models"))
        for target in targets:
            folder = run_training(workspace, *RUNS[name], *TINY, f"iterations={target}")
        states.append(read_checkpoint(folder)[0])
    jax.tree.map(np.testing.assert_array_equal, states[0].nets, states[1].nets)
