"""docs/adding_a_model.md, taken at its word: its own blocks are written, composed and trained."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from odfs_jax import nets
from odfs_jax.faces.spec import FaceSpec

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_model.md"
NAMED_BLOCK = r"```\w+\n# (\S+)\n(.*?)```"


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[str]]:
    """{file that the page names: the blocks for it, in order}."""
    found: dict[str, list[str]] = {}
    for file, block in re.findall(NAMED_BLOCK, PAGE.read_text(), re.DOTALL):
        found.setdefault(file, []).append(block)
    return found


@pytest.fixture
def persona(blocks, tmp_path, monkeypatch) -> dict:
    """What the example's file defines, with the page's row in the table of networks."""
    path = tmp_path / "persona.py"
    path.write_text("".join(blocks["odfs_jax/nets/persona.py"][:1]))
    spec = importlib.util.spec_from_file_location("persona", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (row,) = blocks["odfs_jax/nets/__init__.py"]
    for name, net in eval(f"{{{row}}}", vars(module)).items():
        monkeypatch.setitem(nets.NETS, name, net)
    return vars(module)


@pytest.fixture
def settings(blocks, tmp_path) -> list[str]:
    """The override that lets Hydra find the page's YAML files."""
    for file, texts in blocks.items():
        if file.endswith(".yaml"):
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(texts))
    return [f"hydra.searchpath=[file://{tmp_path}/configs]"]


def test_the_variant_is_what_the_command_line_makes(settings, configure, workspace):
    own = ("model.resolution=96", "model.width=0.5")
    variant = configure(workspace, *settings, "model=df96", *own).model
    assert variant == configure(workspace, "model=df", *own, "model.name=df96").model
    net = nets.build_net(configure(workspace, *settings, "model=df96", *own).model)
    assert net.output_spec == FaceSpec(variant.face_type, 96)


@pytest.mark.slow
def test_the_example_trains(persona, settings, workspace, run_training, read_checkpoint):
    folder = run_training(
        workspace, *settings, "model=persona", "model.face_type=half", "iterations=10"
    )
    state, config, history = read_checkpoint(folder)
    assert config["model"]["net"] == "persona" and folder.name == "persona"
    assert int(state.step) == 10 and state.params["autoencoder"]["people"].shape == (2, 16)
    assert np.isfinite(list(history.rows[-1][1].values())).all()
    assert (folder / "preview.png").is_file()


def test_the_input_specs_of_the_example_are_followed(
    persona, blocks, configure, settings, workspace
):
    """Shown in gray, whatever color the faces have."""
    persona["FaceSpec"] = FaceSpec
    exec(blocks["odfs_jax/nets/persona.py"][1], persona)
    config = configure(workspace, *settings, "model=persona").model
    plain = nets.build_net(config)
    nets.NETS["persona"] = persona["GrayPersona"]  # put back by the fixture
    net = nets.build_net(config)
    assert (
        net.input_specs["src"]
        == net.input_specs["dst"]
        != plain.input_specs["src"]
        == net.output_spec
    )
    faces = jax.numpy.asarray(np.random.default_rng(0).random((1, 4, 4, 3), np.float32))
    shown = np.asarray(net.input_specs["dst"].to_input(faces))
    np.testing.assert_array_equal(shown[..., 0], shown[..., 2])
