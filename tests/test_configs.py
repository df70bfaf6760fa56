"""Every YAML file composes, and what `--cfg job` prints is every setting there is."""

import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import pytest
from omegaconf import MISSING, OmegaConf

from odfs_jax.config import SCHEMAS, compose, config_dir, require_complete
from odfs_jax.errors import UserError
from odfs_jax.nets.masks import MaskNet
from odfs_jax.training.objectives import make_objective

ROOT = Path(config_dir())
COMMANDS = sorted(SCHEMAS)


def groups(command):
    """The config groups that a command's own YAML chooses from."""
    defaults = OmegaConf.load(ROOT / f"{command}.yaml").defaults
    return {key for entry in defaults if not isinstance(entry, str) for key in entry}


USES = {command: groups(command) for command in COMMANDS}
CHOICES = [
    pytest.param(
        command, file.parent.name, file.stem, id=f"{command}-{file.parent.name}-{file.stem}"
    )
    for file in sorted(ROOT.glob("*/*.yaml"))
    for command in COMMANDS
    if file.parent.name in USES[command]
]


def leaves(schema, prefix=""):
    """The dotted names of every field of a dataclass."""
    for field in dataclasses.fields(schema):
        inner = field.default_factory
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_every_group_of_configs_belongs_to_a_command():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert folders <= set.union(*USES.values())
    assert len(CHOICES) >= len(list(ROOT.glob("*/*.yaml"))) > 10


@pytest.mark.parametrize(("command", "group", "choice"), CHOICES)
def test_every_choice_composes_and_builds(command, group, choice):
    fitting = ["model=facemask"] if choice == "segmentation" else []
    config = compose(command, [f"{group}={choice}", *fitting])
    require_complete(config)
    if command != "train":
        return
    net = make_objective(OmegaConf.to_container(config)).net  # which checks what it rebuilds
    if group != "model":
        return
    assert config.name == choice
    if isinstance(net, MaskNet):
        return
    _, dst = net.blank()
    swap = partial(net.init_with_output, jax.random.key(0), method="swap")
    (face, mask, _), _ = jax.eval_shape(swap, dst)
    size = net.output_spec.resolution
    assert face.shape == (1, size, size, 1 if net.output_spec.gray else 3)
    assert mask.shape == (1, size, size, 1)


@pytest.mark.parametrize(
    ("model", "mask"),
    [
        *[(name, "mae") for name in ("h64", "h64_reduced", "h128", "h128_reduced")],
        *[(name, "mse") for name in ("df", "liaef128", "miaef128", "avatar", "saehd")],
    ],
)
def test_a_model_has_its_own_loss(model, mask):
    """docs/reference_2018.md section 8; AVATAR's large stage is a full face, as DF's."""
    assert compose("train", [f"model={model}"]).loss.mask == mask


@pytest.mark.parametrize(
    ("model", "other", "mask"), [("h64", "dssim_mse", "mse"), ("df", "dssim_mae", "mae")]
)
def test_a_loss_that_is_asked_for_comes_before_the_models_own(model, other, mask):
    assert compose("train", [f"loss={other}", f"model={model}"]).loss.mask == mask
    assert compose("train", [f"model={model}", f"loss.mask={mask}"]).loss.mask == mask


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_of_the_schema_is_set_by_the_files(command):
    config = compose(command, ["data=src_dst"] if "data" in USES[command] else [])
    for name in leaves(SCHEMAS[command]):
        OmegaConf.select(config, name, throw_on_missing=True)
    assert not OmegaConf.missing_keys(config)


def test_the_printed_configuration_is_complete(tmp_path):
    """The real command, from another folder; nothing is written and nothing is trained."""
    script = Path(config_dir()).parent / "train.py"
    command = [sys.executable, str(script), "--cfg", "job", "model=h64", "data=src_dst"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    printed = OmegaConf.create(done.stdout)
    for name in leaves(SCHEMAS["train"]):
        parent, _, last = name.rpartition(".")
        assert last in (OmegaConf.select(printed, parent) if parent else printed), name
    assert printed.model.resolution == 64 and printed.data.sides == ["src", "dst"]
    assert not list(tmp_path.iterdir())


def test_all_missing_settings_are_named_in_one_line():
    config = compose("train")
    config.model.resolution = MISSING
    config.batch_size = MISSING
    with pytest.raises(UserError, match=r"without a value: batch_size, model\.resolution"):
        require_complete(config)


@pytest.mark.parametrize("override", ["+augment.wrap=1", "+nonsense=[1,2]", "+data.src.clip=a.mp4"])
def test_settings_that_nothing_reads_are_refused_even_when_added(override):
    name = override[1:].split("=")[0]
    with pytest.raises(UserError, match=f"^no such settings: {name}$"):
        require_complete(compose("train", [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filters.min_score=2", r"^filters\.min_score=2\.0: expected a number from 0 to 1$"),
        ("filters.max_roll=-1", r"^filters\.max_roll=-1\.0: expected a number from 0 to 180$"),
    ],
)
def test_numbers_out_of_their_fields_range_are_refused(override, message):
    with pytest.raises(UserError, match=message):
        require_complete(compose("extract", [override]))
