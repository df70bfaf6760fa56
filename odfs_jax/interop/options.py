"""DeepFaceLab's options of a model as settings of train.py: its network, and how it is trained.

Options are a stranger's: each is checked, and those that are not known are named. Source:
docs/from_deepfacelab.md.
"""

from collections.abc import Mapping
from typing import Any

from odfs_jax.data import foreign
from odfs_jax.faces.types import FaceType
from odfs_jax.nets.saehd import read_archi

MAX_BATCH = 1 << 16
MAX_ITERATION = (1 << 31) - 1
XSEG, QUICK96, AMP = "XSeg", "Quick96", "AMP"
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
    AMP: ("ae_dims", "inter_dims", "e_dims", "d_dims", "d_mask_dims"),
}
OF_QUICK96 = {
    "resolution": 96,
    "face_type": "f",
    "archi": "df-ud",
    "ae_dims": 128,
    "e_dims": 64,
    "d_dims": 64,
    "d_mask_dims": 16,
    "batch_size": 4,
}
OLD_ARCHIS = {"dfuhd": "df-u", "liaeuhd": "liae-u"}  # names of 2020
# Of the network, of memory, and of what is shown and kept.
NOT_OF_TRAINING = {"resolution", "face_type", "archi", "morph_factor", *RANGES} | {
    "models_opt_on_gpu", "write_preview_history", "autobackup_hour"
}  # fmt: skip
COLOR_TRANSFERS = ("none", "rct", "lct", "mkl", "idt", "sot")
EYES_MOUTH = 10  # loss.eyes_mouth for what is a switch there
FLIP = 0.4
OFF = (None, False, 0, "", "n", "none")


def network_settings(kind: str, options: Mapping[str, Any]) -> list[str]:
    """The settings of the network of a model of that `kind`. Raises ValueError, or UserError."""
    face_type = options.get("face_type")
    if not isinstance(face_type, str) or face_type not in FACE_TYPES:
        known = ", ".join(FACE_TYPES)
        raise ValueError(f"face_type {foreign.shown(face_type)} is not one of {known}")
    settings = [f"model.face_type={FACE_TYPES[face_type]}"]
    if kind == XSEG:
        return ["model=xseg", *settings]
    resolution = foreign.integer(options.get("resolution"), "resolution", 64, 640)
    settings.append(f"model.resolution={resolution}")
    for dim in DIMS[AMP if kind == AMP else "SAEHD"]:
        value = options.get(dim)
        if value is None and dim == "d_mask_dims":  # models of before it could be chosen
            value = foreign.integer(options.get("d_dims"), "d_dims", *RANGES["d_dims"]) // 3
            value += value % 2
        settings.append(f"model.args.{dim}={foreign.integer(value, dim, *RANGES[dim])}")
    if kind == AMP:
        factor = foreign.number(options.get("morph_factor", 0.5), "morph_factor", 0, 1)
        return ["model=amp", *settings, f"model.args.morph_factor={factor}"]
    archi = foreign.text(options.get("archi"), "archi", 20)
    archi = OLD_ARCHIS.get(archi, archi)
    read_archi(archi)  # raises UserError, so that it needs no quotes
    return ["model=saehd", *settings, f"model.args.archi={archi}"]


def optimizer_of(kind: str, options: Mapping[str, Any]) -> str:
    """The name here of the optimizer that DeepFaceLab trains such a model with. ValueError."""
    is_belief = _Options(options).on("adabelief", kind not in (QUICK96, XSEG))
    return "adabelief_2020" if is_belief else "rmsprop"


def batch_size(options: Mapping[str, Any]) -> int:
    """Over how many faces DeepFaceLab sums a loss; 1 where it does not say so. ValueError."""
    return foreign.integer(options.get("batch_size", 1), "batch_size", 1, MAX_BATCH)


def training_settings(kind: str, options: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(settings that train on such a model as it was, the names of options left out).

    Beside `network_settings` and the optimizer's name. Raises ValueError for an option whose value
    DeepFaceLab does not have.
    """
    if kind in (QUICK96, XSEG):
        rate = 2e-4 if kind == QUICK96 else 1e-4
        settings = [f"optimizer.learning_rate={rate}", "optimizer.dropout=0.3"]
        settings += [f"batch_size={batch_size(options)}"] if "batch_size" in options else []
        settings += ["augment.flip=0"] if kind == QUICK96 else []
        return settings, ["pretrain"] if _Options(options).on("pretrain") else []

    own, batch = _Options(options), batch_size(options)
    settings = ["augment.scale=0.15"]
    if "batch_size" in options:
        settings.append(f"batch_size={batch}")
    if target := foreign.integer(options.get("target_iter", 0), "target_iter", 0, MAX_ITERATION):
        settings.append(f"iterations={target}")
    if own.on("lr_dropout"):
        settings += ["optimizer.dropout=0.3", "optimizer.dropout_period=500"]
    if own.on("clipgrad"):  # of a sum over the batch
        settings.append(f"optimizer.clip_norm={1 / batch}")
    if own.on("uniform_yaw"):
        settings.append("data.sampling=uniform_yaw")

    both = own.on("random_flip", True)  # once one switch for both sides
    for side, usual in (("src", "random_flip" in options and both), ("dst", both)):
        flip = FLIP if own.on(f"random_{side}_flip", usual) else 0
        settings.append(f"augment.flip_{side}={flip}")
    if not own.on("random_warp", True):
        settings.append("augment.warp=0")
    if strength := own.number("random_hsv_power", 0.3):
        settings.append(f"augment.hsv={strength}")
    transfer = options.get("ct_mode") or "none"
    if transfer not in COLOR_TRANSFERS:
        known = ", ".join(COLOR_TRANSFERS)
        raise ValueError(f"ct_mode {foreign.shown(transfer)} is not one of {known}")
    settings.append(f"augment.color_transfer={transfer}")

    if not own.on("masked_training", True):
        settings.append("loss.masked=false")
    if own.on("eyes_mouth_prio", kind == AMP) or own.on("eyes_prio"):
        settings.append(f"loss.eyes_mouth={EYES_MOUTH}")
    if own.on("blur_out_mask"):
        settings.append("loss.blur_outside=true")
    if power := own.number("face_style_power", 100):
        settings.append(f"loss.face_style={100 * power}")
    if power := own.number("bg_style_power", 100):
        settings.append(f"loss.background_style={power / 10}")
    if own.on("pretrain"):  # without discriminators
        settings += ["pretrain=true", "data=pretrain"]
    is_df = str(options.get("archi")).startswith("df")
    if (power := own.number("true_face_power", 1)) and is_df and not own.on("pretrain"):
        settings.append(f"loss.true_face={power}")
    if (power := own.number("gan_power", 5)) and not own.on("pretrain"):
        resolution = foreign.integer(options.get("resolution"), "resolution", 64, 640)
        patch = options.get("gan_patch_size", resolution // 8)
        dims = options.get("gan_dims", 16)
        settings += [
            "discriminator=unet",
            f"discriminator.power={power}",
            f"discriminator.patch_size={foreign.integer(patch, 'gan_patch_size', 3, 640)}",
            f"discriminator.dims={foreign.integer(dims, 'gan_dims', 4, 512)}",
        ]
    known = NOT_OF_TRAINING | own.asked | {
        "adabelief", "batch_size", "target_iter", "ct_mode", "gan_patch_size", "gan_dims"
    }  # fmt: skip
    return settings, [
        name for name, value in options.items() if name not in known and value not in OFF
    ]


class _Options:
    """DeepFaceLab's options, checked as they are asked for. Raises ValueError."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options, self.asked = options, set[str]()

    def on(self, name: str, usual: bool = False) -> bool:
        """A switch: a bool, or "y", "n"; "cpu" is a "y" that says where it is computed."""
        self.asked.add(name)
        value = self._options.get(name, usual)
        if not (isinstance(value, bool) or value in ("y", "n", "cpu")):
            raise ValueError(f"{name} {foreign.shown(value)} is neither on nor off")
        return value not in (False, "n")

    def number(self, name: str, high: float) -> float:
        """A number of 0 to `high`; 0 where there is none."""
        self.asked.add(name)
        return foreign.number(self._options.get(name, 0), name, 0, high)
