"""Models of DeepFaceLab as ours, and ours as DeepFaceLab's: SAEHD, AMP, Quick96; XSeg as ours.

Such a model is a few files in a folder: NAME_SAEHD_data.dat with its settings, and for each part of
the network NAME_SAEHD_encoder.npy and so on with its tensors by name, all of them pickles.
`nets/saehd.py` says how the tensors lie in our networks. The optimizer's moments are in a file of
their own. Discriminators, histories and pictures are not read; merger_session.dat is never opened.
Source: docs/from_deepfacelab.md.
"""

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import unflatten_dict
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odfs_jax import saved_model
from odfs_jax.config import OptimizerConfig, compose, quoted
from odfs_jax.data import atomic, foreign
from odfs_jax.data.faceset import read_eyes
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.align import INNER, MEAN_FACE
from odfs_jax.faces.landmarks68 import EYES
from odfs_jax.faces.types import FaceType
from odfs_jax.interop import pickles
from odfs_jax.nets.saehd import read_archi
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.optimizers import BeliefState, make_optimizer
from odfs_jax.training.partial import at_step

log = logging.getLogger(__name__)

MAX_DATA = 1 << 32  # bytes of a data.dat: a long history and preview pictures
MAX_BATCH = 1 << 16
MAX_ITERATION = (1 << 31) - 1
FACE_TYPES = {
    "h": FaceType.DFL_HALF,
    "mf": FaceType.DFL_MIDFULL,
    "f": FaceType.DFL_FULL,
    "wf": FaceType.DFL_WHOLE,
    "head": FaceType.DFL_HEAD,
}
RANGES = {
    "ae_dims": (32, 1024),
    "inter_dims": (32, 2048),
    "e_dims": (16, 256),
    "d_dims": (16, 256),
    "d_mask_dims": (16, 256),
}
DIMS = {
    "SAEHD": ("ae_dims", "e_dims", "d_dims", "d_mask_dims"),
    "AMP": ("ae_dims", "inter_dims", "e_dims", "d_dims", "d_mask_dims"),
}
QUICK96 = {
    "resolution": 96,
    "face_type": "f",
    "archi": "df-ud",
    "ae_dims": 128,
    "e_dims": 64,
    "d_dims": 64,
    "d_mask_dims": 16,
}
OLD_ARCHIS = {"dfuhd": "df-u", "liaeuhd": "liae-u"}  # names of 2020
XSEG, XSEG_PART = "XSeg", "256"  # its files have no name but this, and one part, "XSeg_256.npy"
FIRST = (  # they read the picture
    "encoder/down1/downs_0/conv1/kernel",
    "encoder/down1/conv1/kernel",
    f"{XSEG_PART}/conv01/conv/kernel",
)
LAST = {"out_conv", "out_conv1", "out_conv2", "out_conv3"}  # write it

# Optimizers that both programs have: what their file calls the moments, in the order of the state's
# fields, and the state. A gradient there is a sum over the batch, and here the mean.
OPTIMIZERS: dict[str, tuple[dict[str, int], type]] = {  # moment -> the gradient's power in it
    "adabelief_2020": ({"ms": 1, "vs": 2}, BeliefState),
    "rmsprop": ({"acc": 2}, optax.ScaleByRmsState),
}
OPT_FILE = "src_dst_opt.npy"


@dataclass(frozen=True)
class DflModel:
    """What a folder has under one name."""

    folder: Path
    name: str
    kind: str  # SAEHD, AMP, Quick96 or XSeg
    iteration: int
    options: dict[str, Any]

    def path(self, part: str) -> Path:
        """The file of a part: "data.dat", "encoder.npy"."""
        name = XSEG if self.kind == XSEG else f"{self.name}_{self.kind}"
        return self.folder / f"{name}_{part}"


def find_model(folder: Path, name: str | None) -> DflModel:
    """The model called `name` in DeepFaceLab's `folder`; None: the only one. Raises UserError.

    XSeg is called "XSeg", and is meant without a name only where it is alone.
    """
    if not folder.is_dir():
        raise UserError(f"model_folder={folder}: no such folder")
    found = {}
    for kind in ("SAEHD", "AMP", "Quick96"):
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
    return DflModel(folder, own, kind, iteration, QUICK96 if kind == "Quick96" else options)


def import_model(dfl: DflModel, workspace: str, name: str) -> tuple[Path, list[str]]:
    """Writes the model to <workspace>/models/<name>, ready to go on training and to convert.

    The optimizer goes on, where its file is there. Returns (the folder, the settings that make the
    network and the optimizer, as on the command line of train.py). Raises UserError, and then
    leaves no folder.
    """
    folder = Path(workspace) / "models" / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; give another name=")
    optimizer, slots = read_slots(dfl)
    settings = settings_of(dfl) + ([f"optimizer={optimizer}"] if optimizer else [])
    overrides = [f"workspace={quoted(workspace)}", f"name={quoted(name)}", *settings]
    config = OmegaConf.to_container(compose("train", overrides), resolve=True)
    objective = make_objective(config)
    exported, step = objective.exported, jnp.int32(dfl.iteration)
    like = jax.eval_shape(objective.init_state).params[exported]
    if dfl.kind == XSEG:
        params = read_params(dfl, {XSEG_PART: like})[XSEG_PART]
    else:
        params = read_params(dfl, like)
    state = jax.jit(objective.init_state)()
    own = state.nets[exported]
    opt = own.opt
    if optimizer is None:
        log.info("%s: no file of an optimizer that is known here; it begins afresh", dfl.folder)
    else:
        opt = with_moments(opt, optimizer, moments_of(dfl, like, optimizer, slots))
    own = own.replace(params=jax.device_put(params), opt=at_step(opt, step))
    state = state.replace(nets=state.nets | {exported: own}, step=step)
    metadata = {"exported_net": exported}
    if dfl.kind != XSEG:
        metadata |= {"src_eyes": _eyes(config, objective.net.output_spec)}
    with atomic.replacing_folder(folder) as temporary:
        with closing(Checkpoints(temporary)) as checkpoints:
            checkpoints.save(dfl.iteration, state, config, metadata, History())
            checkpoints.finish()
        (temporary / "config.yaml").write_text(OmegaConf.to_yaml(config))
    return folder, settings


def settings_of(dfl: DflModel) -> list[str]:
    """The settings of `train.py` that make the network of `dfl`. Raises UserError."""
    try:
        if dfl.kind == XSEG:
            return ["model=xseg", f"model.face_type={_face_type(dfl.options)}"]
        return _settings(dfl.kind == "AMP", dfl.options)
    except ValueError as error:
        raise BadFileError(dfl.path("data.dat"), str(error)) from error


def _settings(is_amp: bool, options: Mapping[str, Any]) -> list[str]:
    """The settings for DeepFaceLab's `options`. Raises ValueError for what it does not have."""
    face_type = _face_type(options)
    resolution = foreign.integer(options.get("resolution"), "resolution", 64, 640)
    settings = [f"model.face_type={face_type}", f"model.resolution={resolution}"]
    for dim in DIMS["AMP" if is_amp else "SAEHD"]:
        value = options.get(dim)
        if value is None and dim == "d_mask_dims":  # models of before it could be chosen
            value = foreign.integer(options.get("d_dims"), "d_dims", *RANGES["d_dims"]) // 3
            value += value % 2
        settings.append(f"model.args.{dim}={foreign.integer(value, dim, *RANGES[dim])}")
    if is_amp:
        factor = foreign.number(options.get("morph_factor", 0.5), "morph_factor", 0, 1)
        return ["model=amp", *settings, f"model.args.morph_factor={factor}"]
    archi = foreign.text(options.get("archi"), "archi", 20)
    archi = OLD_ARCHIS.get(archi, archi)
    read_archi(archi)  # raises UserError, so that it needs no quotes
    return ["model=saehd", *settings, f"model.args.archi={archi}"]


def _face_type(options: Mapping[str, Any]) -> FaceType:
    face_type = options.get("face_type")
    if not isinstance(face_type, str) or face_type not in FACE_TYPES:
        known = ", ".join(FACE_TYPES)
        raise ValueError(f"face_type {foreign.shown(face_type)} is not one of {known}")
    return FACE_TYPES[face_type]


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


def read_slots(dfl: DflModel) -> tuple[str | None, Mapping[str, Any]]:
    """(the name here of the optimizer whose file `dfl` has, or None, what is in it). BadFileError.

    Files without a slot of a known kind, as those of an optimizer that has not begun, are as none.
    """
    path = dfl.path(OPT_FILE)
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
    dfl: DflModel, like: Mapping[str, Any], optimizer: str, slots: Mapping[str, Any]
) -> list[dict]:
    """The moments in `slots` as trees like the parameters, in the optimizer's order. BadFileError.

    A part without any slot, as AMP's inters are, has zeros.
    """
    batch = _batch_size(dfl.options)
    found = []
    try:
        for moment, power in OPTIMIZERS[optimizer][0].items():
            leaves: dict[str, np.ndarray] = {}
            for name, shape in saved_model.shapes(like).items():
                part, key = name.partition("/")[0], _slot(moment, name)
                trained = any(other.startswith(f"{moment}_{part}/") for other in slots)
                value = _tensor(slots.get(key), key, shape) if trained else np.zeros(shape)
                leaves[name] = _turned(name, np.float32(value / batch**power))
            found.append(unflatten_dict(leaves, sep="/"))
    except ValueError as error:
        raise BadFileError(dfl.path(OPT_FILE), str(error)) from error
    return found


def with_moments(opt: optax.OptState, optimizer: str, moments: list[dict]) -> optax.OptState:
    """The state `opt` of the optimizer of that name, with `moments`."""
    kind = OPTIMIZERS[optimizer][1]

    def filled(node: Any) -> Any:
        return kind(*jax.device_put(moments)) if isinstance(node, kind) else node

    return jax.tree.map(filled, opt, is_leaf=lambda node: isinstance(node, kind))


def _slot(moment: str, name: str) -> str:
    """The name in DeepFaceLab's file of a moment of the parameter `name`, its part included."""
    return f"{moment}_{_key(name).removesuffix(':0')}_0:0"


def _batch_size(options: Mapping[str, Any]) -> int:
    size = options.get("batch_size")
    return size if type(size) is int and 1 <= size <= MAX_BATCH else 1


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

    `name` is NAME of NAME_SAEHD_encoder.npy. The optimizer goes along where DeepFaceLab has it.
    Raises UserError for a model that it does not have, and for files that exist.
    """
    saved = saved_model.load_model(model)
    kind = {"saehd": "SAEHD", "amp": "AMP"}.get(saved.config["net"])
    face_type = {ours: theirs for theirs, ours in FACE_TYPES.items()}.get(saved.config["face_type"])
    if kind is None or saved.config["width"] != 1:
        raise UserError(
            f"{model}: DeepFaceLab has no such network; it has model=saehd and model=amp"
        )
    if face_type is None:
        known = ", ".join(FACE_TYPES.values())
        found = saved.config["face_type"]
        raise UserError(f"{model}: a {found} model; DeepFaceLab cuts faces as {known}")
    if not name or "_" in name or "/" in name:
        raise UserError(f"dfl_name={name}: DeepFaceLab takes a name without _ and /")
    args = {key: value for key, value in saved.config["args"].items() if key != "morph"}
    options = {"resolution": saved.config["resolution"], "face_type": face_type, **args}
    try:
        _settings(kind == "AMP", options)
    except ValueError as error:
        raise UserError(f"{model}: DeepFaceLab has no such network ({error})") from error
    data = {
        "iter": max(1, saved.step),
        "options": options,
        "loss_history": [],
        "sample_for_preview": None,
        "choosed_gpu_indexes": None,
    }
    files = {f"{part}.npy": tensors(part, own) for part, own in saved.params.items()}
    slots, config = _slots_of(model, saved)
    if slots:
        files |= {OPT_FILE: slots}
        options |= {"adabelief": "ms" in OPTIMIZERS[config["optimizer"]["name"]][0]}
        options |= {"batch_size": config["batch_size"]}
    files = files | {"data.dat": data}  # the last: without it there is no model
    paths = {part: folder / f"{name}_{kind}_{part}" for part in files}
    for path in paths.values():
        if path.exists():
            raise UserError(f"{path}: exists already; give another dfl_name=")
    folder.mkdir(parents=True, exist_ok=True)
    for part, path in paths.items():
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            file.writelines(pickles.encode(files[part]))
    return list(paths.values())


def tensors(part: str, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The parameters of a part of the network as DeepFaceLab's file has them: {name: array}."""
    return {
        _key(name): _turned(f"{part}/{name}", np.asarray(leaf, np.float32))
        for name, leaf in saved_model.named(params).items()
    }


def _slots_of(model: Path, saved: saved_model.SavedModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what DeepFaceLab's optimizer file has, the run's settings); nothing where it has none such.

    Nothing, too, where not every parameter was trained, or moments were kept in half the memory.
    """
    checkpoint = model / "checkpoints" / str(saved.step)
    config = saved_model.read_config(checkpoint)
    name, batch = config["optimizer"].get("name"), _batch_size(config)
    if name not in OPTIMIZERS or config["optimizer"].get("moments") != "float32":
        return {}, config
    try:
        own = OmegaConf.merge(OmegaConf.structured(OptimizerConfig), config["optimizer"])
        own = OmegaConf.to_container(own, throw_on_missing=True)
        like = jax.eval_shape(make_optimizer(own, 0).init, saved.params)
    except (OmegaConfBaseException, UserError):
        return {}, config
    exported = saved_model.ONLY_NET
    if not saved_model.has_part(checkpoint, exported, "opt", like):
        return {}, config
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {"nets": {exported: {"opt": saved_model.on(device, like)}}}
    opt = saved_model.restore_state(checkpoint, like)["nets"][exported]["opt"]
    moments, kind = OPTIMIZERS[name]
    nodes = jax.tree.leaves(opt, is_leaf=lambda node: isinstance(node, kind))
    (state,) = (node for node in nodes if isinstance(node, kind))
    slots: dict[str, Any] = {"iters:0": np.array(saved.step, np.int64)}
    for (moment, power), tree in zip(moments.items(), state, strict=True):
        for parameter, value in saved_model.named(tree).items():
            value = np.asarray(value, np.float32) * np.float32(batch**power)
            slots[_slot(moment, parameter)] = _turned(parameter, value)
    return slots, config | {"batch_size": batch}
