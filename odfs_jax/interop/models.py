"""Models of DeepFaceLab as ours, and ours as DeepFaceLab's: SAEHD, AMP, Quick96 and XSeg.

Such a model is a few files in a folder: NAME_SAEHD_data.dat with its settings, and for each part of
the network NAME_SAEHD_encoder.npy and so on with its tensors by name, all of them pickles.
`nets/saehd.py` says how the tensors lie in our networks. Discriminators are files of their own, and
so are the moments of each optimizer. Histories and pictures are not read; merger_session.dat is
never opened. Source: docs/from_deepfacelab.md.
"""

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import unflatten_dict
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odfs_jax import saved_model
from odfs_jax.config import compose, quoted
from odfs_jax.data import atomic, foreign
from odfs_jax.data.faceset import read_eyes
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.align import INNER, MEAN_FACE
from odfs_jax.faces.landmarks68 import EYES
from odfs_jax.interop import pickles
from odfs_jax.interop.options import (
    AMP,
    FACE_TYPES,
    MAX_ITERATION,
    OF_QUICK96,
    QUICK96,
    XSEG,
    batch_size,
    network_settings,
    optimizer_of,
    training_settings,
)
from odfs_jax.saved_model import MASK_NET
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History
from odfs_jax.training.objectives import Objective, make_objective
from odfs_jax.training.objectives.adversarial import CodeJudge, FaceJudge
from odfs_jax.training.optimizers import BeliefState
from odfs_jax.training.partial import at_step
from odfs_jax.training.step import NetState, TrainState

log = logging.getLogger(__name__)

MAX_DATA = 1 << 32  # bytes of a data.dat: a long history and preview pictures
NAMED = 20  # of what is left out, before "and more"
KINDS = {"saehd": "SAEHD", "amp": AMP, "xseg": XSEG}  # by model.net
OF_XSEG = {"resolution": 256, "args": {"base": 32}}  # the one size that there is


class Files(NamedTuple):
    """Where DeepFaceLab has a network of ours, or the parts of one."""

    part: str | None  # its file; None: each of its parts has one, called as the part
    slot: str | None  # what its optimizer calls it; None: as the file
    opt: str  # the optimizer's file


SWAP_FILES = Files(None, None, "src_dst_opt.npy")
FILES = {  # networks by our names
    MASK_NET: Files("256", "XSeg", "256_opt.npy"),
    FaceJudge.name: Files("GAN", "D_src", "GAN_opt.npy"),
    CodeJudge.name: Files("code_discriminator", "dis", "D_code_opt.npy"),
}
AMPS_JUDGE = FILES[FaceJudge.name]._replace(slot="GAN")
FIRST = (  # they read the picture
    "encoder/down1/downs_0/conv1/kernel",
    "encoder/down1/conv1/kernel",
    "256/conv01/conv/kernel",
    "GAN/in_conv/kernel",
)
LAST = {"out_conv", "out_conv1", "out_conv2", "out_conv3"}  # write it

# Optimizers that both programs have: what their file calls the moments, in the order of the state's
# fields, and the state. A gradient there is a sum over the batch, and here the mean.
OPTIMIZERS: dict[str, tuple[dict[str, int], type]] = {  # moment -> the gradient's power in it
    "adabelief_2020": ({"ms": 1, "vs": 2}, BeliefState),
    "rmsprop": ({"acc": 2}, optax.ScaleByRmsState),
}


@dataclass(frozen=True)
class DflModel:
    """What a folder has under one name."""

    folder: Path
    name: str
    kind: str  # SAEHD, AMP, Quick96 or XSeg
    iteration: int
    options: dict[str, Any]
    others: tuple[str, ...] = ()  # what else its data.dat has

    @property
    def stem(self) -> str:
        """How the names of its files begin."""
        return XSEG if self.kind == XSEG else f"{self.name}_{self.kind}"

    def path(self, part: str) -> Path:
        """The file of a part: "data.dat", "encoder.npy"."""
        return self.folder / f"{self.stem}_{part}"

    def files_of(self, net: str) -> Files:
        """Where it has our network `net`."""
        if self.kind == AMP and net == FaceJudge.name:
            return AMPS_JUDGE
        return FILES.get(net, SWAP_FILES)


def find_model(folder: Path, name: str | None) -> DflModel:
    """The model called `name` in DeepFaceLab's `folder`; None: the only one. Raises UserError.

    XSeg is called "XSeg", and is meant without a name only where it is alone.
    """
    if not folder.is_dir():
        raise UserError(f"model_folder={folder}: no such folder")
    found = {}
    for kind in ("SAEHD", AMP, QUICK96):
        for path in sorted(folder.glob(f"[!.]*_{kind}_data.dat")):
            found[path.name.removesuffix(f"_{kind}_data.dat"), kind] = path
    if (path := folder / f"{XSEG}_data.dat").is_file() and (name == XSEG or not found):
        found[XSEG, XSEG] = path
    chosen = {key: path for key, path in found.items() if name in (None, key[0])}
    if len(chosen) != 1:
        names = ", ".join(f"{own} ({kind})" for own, kind in found) or "none"
        raise UserError(
            f"model_folder={folder}: {len(chosen)} models "
            f"{'in it' if name is None else f'called {name}'}; give name=, one of: {names}"
        )
    ((own, kind), path) = next(iter(chosen.items()))
    try:
        data = foreign.mapping(pickles.read(path, MAX_DATA), "it", ("iter",))
        iteration = foreign.integer(data["iter"], "iter", 1, MAX_ITERATION)
        options = foreign.mapping(data.get("options", {}), "options")
    except ValueError as error:
        raise BadFileError(path, str(error)) from error
    others = tuple(key for key in data if key not in ("iter", "options") and data[key] is not None)
    return DflModel(
        folder, own, kind, iteration, OF_QUICK96 if kind == QUICK96 else options, others
    )


def import_model(dfl: DflModel, workspace: str, name: str) -> tuple[Path, list[str]]:
    """Writes the model to <workspace>/models/<name>, ready to go on training and to convert.

    Discriminators and optimizers go on, where their files are there; one line of the log names all
    that is not taken over. Returns (the folder, the settings that train on the model as it was, as
    on the command line of train.py). Raises UserError, and then leaves no folder.
    """
    folder = Path(workspace) / "models" / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; give another name=")
    exported = MASK_NET if dfl.kind == XSEG else saved_model.ONLY_NET
    found, slots = read_slots(dfl.path(dfl.files_of(exported).opt))
    try:
        more, left = training_settings(dfl.kind, dfl.options)
        optimizer = found or optimizer_of(dfl.kind, dfl.options)
    except ValueError as error:
        raise BadFileError(dfl.path("data.dat"), str(error)) from error
    settings = [*settings_of(dfl), f"optimizer={optimizer}", *more]
    overrides = [f"workspace={quoted(workspace)}", f"name={quoted(name)}", *settings]
    config = OmegaConf.to_container(compose("train", overrides), resolve=True)
    objective = make_objective(config)
    step, nets, afresh, read = jnp.int32(dfl.iteration), {}, [], {dfl.path("data.dat")}
    for net, like in objective.state_shapes.params.items():
        files = dfl.files_of(net)
        if net != exported and not dfl.path(f"{files.part}.npy").exists():
            continue
        if net != exported:
            found, slots = read_slots(dfl.path(files.opt))
        like = like if files.part is None else {files.part: like}
        params = read_params(dfl, like)
        read |= {dfl.path(f"{part}.npy") for part in like}
        moments = None
        if found == optimizer:
            moments = moments_of(dfl, like, optimizer, slots, files)
            read.add(dfl.path(files.opt))
        else:
            afresh.append(f"the optimizer of {net}")
        if files.part is not None:
            params = params[files.part]
            moments = moments and [moment[files.part] for moment in moments]
        params = jax.device_put(params)
        opt = jax.jit(objective.optimizers[net].init)(params)
        opt = with_moments(opt, optimizer, moments) if moments else opt
        nets[net] = NetState(params, at_step(opt, step))

    def rest() -> TrainState:
        """What is not in the folder, drawn as in a new run."""
        state = objective.init_state()
        return state.replace(nets={n: own for n, own in state.nets.items() if n not in nets})

    drawn = jax.jit(rest)()
    for net, own in drawn.nets.items():
        afresh.append(net)
        nets[net] = own.replace(opt=at_step(own.opt, step))
    state = drawn.replace(nets=nets, step=step)
    metadata = {"exported_net": exported}
    if dfl.kind != XSEG:
        metadata |= {"src_eyes": _eyes(config, objective.net.output_spec)}
    with atomic.replacing_folder(folder) as temporary:
        with closing(Checkpoints(temporary)) as checkpoints:
            checkpoints.save(dfl.iteration, state, config, metadata, History())
            checkpoints.finish()
        (temporary / "config.yaml").write_text(OmegaConf.to_yaml(config))
    left += [*dfl.others, *_unread(dfl, read)]
    if left:
        log.info("%s: not taken over: %s", dfl.path("data.dat"), _listed(left))
    if afresh:
        log.info("%s: not in the folder, begin afresh: %s", folder, ", ".join(afresh))
    return folder, settings


def _unread(dfl: DflModel, read: set[Path]) -> list[str]:
    """The names of files of `dfl` that are not in `read`, as many as are shown and one more."""
    own = (path for path in dfl.folder.iterdir() if path.name.startswith(f"{dfl.stem}_"))
    return sorted(path.name for path in islice((p for p in own if p not in read), NAMED + 1))


def _listed(names: list[str]) -> str:
    """Names, which may be a stranger's, for the log."""
    shown = [name if name.isidentifier() else foreign.shown(name) for name in names[:NAMED]]
    return ", ".join(shown + ["and more"] * (len(names) > NAMED))


def settings_of(dfl: DflModel) -> list[str]:
    """The settings of `train.py` that make the network of `dfl`. Raises UserError."""
    try:
        return network_settings(dfl.kind, dfl.options)
    except ValueError as error:
        raise BadFileError(dfl.path("data.dat"), str(error)) from error


def read_params(dfl: DflModel, like: Mapping[str, Any]) -> dict:
    """The parameters in the files of `dfl`, each in the shape that `like` says. BadFileError."""
    params = {}
    for part, own in like.items():
        path = dfl.path(f"{part}.npy")
        wanted = {_key(name): (name, shape) for name, shape in saved_model.shapes(own).items()}
        count = sum(leaf.size for leaf in jax.tree.leaves(own))
        try:
            found = foreign.mapping(pickles.read(path, 8 * count + (1 << 20)), "it")
            surplus = sorted(found.keys() - wanted.keys())
            if surplus:
                raise ValueError(f"{foreign.shown(surplus[0])} is not of this network")
            params[part] = {}
            for key, (name, shape) in wanted.items():
                value = _tensor(found.get(key), key, shape)
                *outer, last = name.split("/")
                inner = params[part]
                for step in outer:
                    inner = inner.setdefault(step, {})
                inner[last] = _turned(f"{part}/{name}", value)
        except ValueError as error:
            raise BadFileError(path, str(error)) from error
    return params


def read_slots(path: Path) -> tuple[str | None, Mapping[str, Any]]:
    """(the name here of the optimizer whose file is at `path`, or None, what is in it).

    Files without a slot of a known kind, as those of an optimizer that has not begun, are as none.
    Raises BadFileError.
    """
    if not path.exists():
        return None, {}
    try:
        slots = foreign.mapping(pickles.read(path, MAX_DATA), "it")
    except ValueError as error:
        raise BadFileError(path, str(error)) from error
    for name, (moments, _) in OPTIMIZERS.items():
        if any(key.startswith(f"{moment}_") for key in slots for moment in moments):
            return name, slots
    return None, {}


def moments_of(
    dfl: DflModel,
    like: Mapping[str, Any],
    optimizer: str,
    slots: Mapping[str, Any],
    files: Files = SWAP_FILES,
) -> list[dict]:
    """The moments in `slots` as trees like the parameters, in the optimizer's order. BadFileError.

    `like` has the parameters by the parts of `files`. A part without any slot, as AMP's inters are,
    has zeros.
    """
    found = []
    try:
        batch = batch_size(dfl.options)
        for moment, power in OPTIMIZERS[optimizer][0].items():
            leaves: dict[str, np.ndarray] = {}
            for name, shape in saved_model.shapes(like).items():
                part, key = files.slot or name.partition("/")[0], _slot(moment, name, files)
                trained = any(other.startswith(f"{moment}_{part}/") for other in slots)
                value = _tensor(slots.get(key), key, shape) if trained else np.zeros(shape)
                leaves[name] = _turned(name, np.float32(value / batch**power))
            found.append(unflatten_dict(leaves, sep="/"))
    except ValueError as error:
        raise BadFileError(dfl.path(files.opt), str(error)) from error
    return found


def with_moments(opt: optax.OptState, optimizer: str, moments: list[dict]) -> optax.OptState:
    """The state `opt` of the optimizer of that name, with `moments`."""
    kind = OPTIMIZERS[optimizer][1]

    def filled(node: Any) -> Any:
        return kind(*jax.device_put(moments)) if isinstance(node, kind) else node

    return jax.tree.map(filled, opt, is_leaf=lambda node: isinstance(node, kind))


def _slot(moment: str, name: str, files: Files) -> str:
    """The name in DeepFaceLab's file of a moment of the parameter `name`, its part included."""
    part, _, rest = name.partition("/")
    return f"{moment}_{files.slot or part}/{_key(rest).removesuffix(':0')}_0:0"


def _key(name: str) -> str:
    """The name in DeepFaceLab's file of the parameter `name` of a part of the network."""
    path, _, last = name.rpartition("/")
    return f"{path}/{'weight' if last == 'kernel' else last}:0"


def _tensor(value: Any, key: str, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float16):
        raise ValueError(f"{key} is not there, or no array of float32")
    if value.shape != shape:
        raise ValueError(f"{key} has the shape {value.shape}, not {shape} as its settings say")
    if not np.isfinite(value).all():
        raise ValueError(f"{key} holds numbers that are not finite")
    return value.astype(np.float32)


def _turned(name: str, value: np.ndarray) -> np.ndarray:
    """A tensor with the channels of pictures in the other order: BGR there, RGB here."""
    parts = name.split("/")
    if name in FIRST:
        return np.ascontiguousarray(value[:, :, ::-1])
    if parts[0].startswith("decoder") and parts[1] in LAST:
        return np.ascontiguousarray(value[..., ::-1]) if value.shape[-1] == 3 else value
    return value


def _eyes(config: Mapping[str, Any], spec: Any) -> list[list[float]]:
    """Where src's eyes are, see `saved_model.SavedModel`; without src's faces the mean face's."""
    folder = Path(config["data"]["src"]["aligned"])
    try:
        return read_eyes(folder, "src", spec.face_type).tolist()
    except UserError:
        log.info(
            "%s: no faces of src; until some are trained on, its eyes are the mean face's", folder
        )
    kind = spec.face_type
    eyes = MEAN_FACE[EYES.start - INNER.start : EYES.stop - INNER.start]
    corner = np.array([kind.padding, kind.padding + kind.shift])
    return (eyes * (1 - 2 * kind.padding) + corner).tolist()


# ------------------------------------------------------------------------------------ back to DFL


def export_model(model: Path, folder: Path, name: str) -> list[Path]:
    """Writes our model at `model` into `folder` as DeepFaceLab reads it; returns the files.

    `name` is NAME of NAME_SAEHD_encoder.npy; XSeg has none. Discriminators and optimizers go along
    where DeepFaceLab has such; one line of the log names those that do not. Raises UserError for a
    model that it does not have, and for files that exist.
    """
    saved = saved_model.load_model(model)
    options = _options_of(model, saved.config)
    kind = KINDS[saved.config["net"]]
    if kind != XSEG and (not name or "_" in name or "/" in name):
        raise UserError(f"dfl_name={name}: DeepFaceLab takes a name without _ and /")
    data = {
        "iter": max(1, saved.step),
        "options": options,
        "loss_history": [],
        "sample_for_preview": None,
        "choosed_gpu_indexes": None,
    }
    dfl = DflModel(folder, name, kind, saved.step, options)
    exported = MASK_NET if kind == XSEG else saved_model.ONLY_NET
    files = _files_of(dfl, exported, saved.params)
    more, settings, left = _trained_with(dfl, model, exported)
    options |= settings
    files |= more | {"data.dat": data}  # the last: without it there is no model
    paths = {part: dfl.path(part) for part in files}
    for path in paths.values():
        if path.exists():
            raise UserError(f"{path}: exists already; give another dfl_name=")
    folder.mkdir(parents=True, exist_ok=True)
    for part, path in paths.items():
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            file.writelines(pickles.encode(files[part]))
    if left:
        log.info("%s: DeepFaceLab does not have: %s", model, ", ".join(left))
    return list(paths.values())


def _options_of(model: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """DeepFaceLab's options for the network of a `ModelConfig`. UserError where it has none."""
    kind = KINDS.get(config["net"])
    face_type = {ours: theirs for theirs, ours in FACE_TYPES.items()}.get(config["face_type"])
    if kind is None or config["width"] != 1:
        raise UserError(
            f"{model}: DeepFaceLab has no such network; it has model=saehd, model=amp and "
            "model=xseg"
        )
    if face_type is None:
        known = ", ".join(FACE_TYPES.values())
        found = config["face_type"]
        raise UserError(f"{model}: a {found} model; DeepFaceLab cuts faces as {known}")
    if kind == XSEG:
        if {key: config[key] for key in OF_XSEG} != OF_XSEG:
            raise UserError(f"{model}: DeepFaceLab has XSeg at 256 pixels with base=32 only")
        return {"face_type": face_type}
    args = {key: value for key, value in config["args"].items() if key != "morph"}
    options = {"resolution": config["resolution"], "face_type": face_type, **args}
    try:
        network_settings(kind, options)
    except ValueError as error:
        raise UserError(f"{model}: DeepFaceLab has no such network ({error})") from error
    return options


def _trained_with(
    dfl: DflModel, model: Path, exported: str
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """(files of discriminators and optimizers, their options, the names of those without a file).

    Of the run at `model`, whose last checkpoint may be a stranger's.
    """
    checkpoint = model / "checkpoints" / str(dfl.iteration)
    config = saved_model.read_config(checkpoint)
    try:
        others = {key: value for key, value in config.items() if key != "model"}
        whole = OmegaConf.merge(compose("train"), others)
        config = OmegaConf.to_container(whole) | {"model": config["model"]}  # references stay texts
        objective = make_objective(config)
    except (OmegaConfBaseException, UserError):
        return {}, {}, ["what trained it"]
    files: dict[str, Any] = {}
    judges, left = _judges_of(dfl, objective)
    options = {key: value for own in judges.values() for key, value in own.items()}
    optimizer, batch = config["optimizer"]["name"], config["batch_size"]
    is_known = optimizer in OPTIMIZERS and config["optimizer"]["moments"] == "float32"
    goes_along = is_known and type(batch) is int and not config["freeze"]
    if goes_along:
        options |= {"batch_size": batch}
        options |= {"adabelief": optimizer == "adabelief_2020"} if dfl.kind != XSEG else {}
    else:
        left.append("the optimizer's moments")
    for net, like in objective.state_shapes.nets.items():
        wanted = {"params": like.params} if net in judges else {}
        wanted |= {"opt": like.opt} if goes_along and net in (exported, *judges) else {}
        there = {
            part: own
            for part, own in wanted.items()
            if saved_model.has_part(checkpoint, net, part, own)
        }
        if not there:
            continue
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = {"nets": {net: saved_model.on(device, there)}}
        found = saved_model.restore_state(checkpoint, like)["nets"][net]
        if "params" in found:
            files |= _files_of(dfl, net, found["params"])
        if "opt" in found:
            own = dfl.files_of(net)
            files[own.opt] = _slots_of(own, found["opt"], optimizer, batch, dfl.iteration)
    return files, options, left


def _judges_of(dfl: DflModel, objective: Objective) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """({discriminator: its options}, the names of those that DeepFaceLab does not have)."""
    judges, left = {}, []
    for judge in getattr(objective, "judges", ()):
        if isinstance(judge, CodeJudge):
            is_there = dfl.kind == "SAEHD" and dfl.options["archi"].startswith("df")
            options = {"true_face_power": judge.power}
        else:
            is_there = judge.net.unet
            options = {
                "gan_power": judge.power,
                "gan_patch_size": judge.patch_size,
                "gan_dims": judge.net.dims,
            }
        if is_there:
            judges[judge.name] = options
        else:
            left.append(judge.name)
    return judges, left


def _files_of(dfl: DflModel, net: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """{file: its tensors by name} of the network `net`."""
    part = dfl.files_of(net).part
    parts = params if part is None else {part: params}
    return {f"{part}.npy": tensors(part, own) for part, own in parts.items()}


def tensors(part: str, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The parameters of a part of the network as DeepFaceLab's file has them: {name: array}."""
    return {
        _key(name): _turned(f"{part}/{name}", np.asarray(leaf, np.float32))
        for name, leaf in saved_model.named(params).items()
    }


def _slots_of(
    files: Files, opt: optax.OptState, optimizer: str, batch: int, step: int
) -> dict[str, Any]:
    """What DeepFaceLab's optimizer file has for the state `opt`."""
    moments, kind = OPTIMIZERS[optimizer]
    nodes = jax.tree.leaves(opt, is_leaf=lambda node: isinstance(node, kind))
    (state,) = (node for node in nodes if isinstance(node, kind))
    slots: dict[str, Any] = {"iters:0": np.array(step, np.int64)}
    for (moment, power), tree in zip(moments.items(), state, strict=True):
        parts = tree if files.part is None else {files.part: tree}
        for parameter, value in saved_model.named(parts).items():
            value = np.asarray(value, np.float32) * np.float32(batch**power)
            slots[_slot(moment, parameter, files)] = _turned(parameter, value)
    return slots
