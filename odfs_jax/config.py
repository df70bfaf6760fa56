"""The schema of every setting. Hydra composes the YAML files of `configs/` into these classes.

A key that is not here is refused by name, a value of the wrong type by type, a number out of the
range of its field (`within`) by range. Meanings and units stand beside the defaults in the YAML
files.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, get_args, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf, open_dict

from odfs_jax.errors import UserError

T = TypeVar("T")

# The last parts of keys whose values are paths or names that a user chose.
PATHS = (
    "workspace",
    "workspaces",
    "name",
    "mask_model",
    "input",
    "aligned",
    "path",
    "file",
    "shots",
    "identity",
    "result",
)
PATHS += (
    "truth",
    "key",
    "cert",
    "init_from",
    "weights",
    "compilation_cache",
    "token",
    "token_file",
    "faces",
    "model_folder",
    "folder",
    "src",
    "dst",
    "out",
    "jobs",
)
STAGES = ("extract", "train", "convert")  # commands whose settings `swap` takes as lists


def within(low: float, high: float = math.inf, default: Any = NO_DEFAULT) -> Any:
    """A dataclass field for a number from `low` to `high`; `check_values` checks it."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass
class SideConfig:
    input: str | None = None
    aligned: str = MISSING


@dataclass
class DataConfig:
    sides: list[str] = MISSING
    src: SideConfig = field(default_factory=SideConfig)
    dst: SideConfig = field(default_factory=SideConfig)


@dataclass
class TrainDataConfig(DataConfig):
    sampling: str = MISSING
    brows: bool = True
    memory_gb: float | None = within(0, default=None)


@dataclass
class HardwareConfig:
    devices: Any = MISSING
    multi_gpu: bool = False
    memory_gb: float | None = None
    compilation_cache: str | None = None
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


@dataclass
class ModelConfig:
    name: str = MISSING
    net: str = MISSING
    face_type: str = MISSING
    resolution: int = MISSING
    width: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    erode_modifier: float = 0.0
    blur_modifier: float = 0.0
    border: float = 0.0
    masked_hist_match: bool = True


@dataclass
class FaceLossConfig:
    dssim: float = 0.0
    ms_ssim: float = 0.0
    mae: float = 0.0
    mse: float = 0.0


@dataclass
class LossConfig:
    face: FaceLossConfig = field(default_factory=FaceLossConfig)
    mask: str = MISSING
    mask_weight: float = 1.0
    masked: bool = True
    margin: float = 0.0
    eyes_mouth: float = 0.0
    scaled_window: bool = False
    soft_mask: bool = False
    blur_outside: bool = False
    extend_skin: bool = False
    true_face: float = within(0, 100, 0.0)
    face_style: float = 0.0
    background_style: float = 0.0
    light: float = 0.0


@dataclass
class OptimizerConfig:
    name: str = MISSING
    learning_rate: float = MISSING
    b1: float = 0.9
    b2: float = 0.999
    dropout: float | None = within(0.01, 1, None)
    dropout_period: int | None = within(2, default=None)
    moments: str = "float32"
    clip_norm: float | None = None
    schedule: str = "constant"
    warmup: int = 0


@dataclass
class ObjectiveConfig:
    name: str = MISSING
    objects: float = within(0, 1, 0.85)
    held_out: float | None = within(0, 0.9, None)


@dataclass
class DiscriminatorConfig:
    name: str = "none"
    patch_size: int | None = within(3, 640, None)
    dims: int = within(4, 512, 16)
    power: float = within(0, 100, 0.1)
    start: int = within(0, default=0)
    r1: float = within(0, default=0.0)
    of_swap: bool = False


@dataclass
class AugmentConfig:
    rotation: float = MISSING
    scale: float = MISSING
    shift: float = MISSING
    flip: float = MISSING
    flip_src: float | None = within(0, 1, None)
    flip_dst: float | None = within(0, 1, None)
    warp: float = MISSING
    warp_until: int | None = None
    transform_until: int | None = None
    color: float = MISSING
    light: float = MISSING
    hsv: float = within(0, 1, MISSING)
    color_transfer: str = "none"
    blur: float = within(0, 100, 0.0)
    shrink: float = within(0, 0.95, 0.0)
    noise: float = within(0, 1, 0.0)
    jpeg: float = within(0, 0.99, 0.0)


@dataclass
class DetectorConfig:
    name: str = MISSING
    batch_size: int = MISSING
    rotations: list[int] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class LandmarksConfig:
    name: str = MISSING
    average: int = 1
    second_pass: bool = False
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class FiltersConfig:
    min_score: float = within(0, 1, MISSING)
    min_size: float = within(1, 4096, MISSING)
    min_area: float = within(0, 100, MISSING)
    max_area: float = within(0, 100, MISSING)
    max_shape: float = within(0, 10, MISSING)
    max_roll: float | None = within(0, 180, None)


@dataclass
class SmoothingConfig:
    name: str = MISSING
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class DegradeConfig:
    bicubic: float = 0.0
    denoise: float = 0.0
    jpeg: float = 0.0


@dataclass
class MergeConfig:
    mode: str = MISSING
    anchor: str = "face"
    scale: float = 0.0
    mask: str = "predicted"
    keep: list[str] = field(default_factory=list)
    erode: float = 0.0
    blur: float = 0.0
    feather: str = "linear"
    opacity: float = 100.0
    color: str = "none"
    color_smoothing: int = 12
    sharpen: float = 0.0
    sharpen_by: str = "gaussian"
    motion_blur: float = 0.0
    degrade: DegradeConfig = field(default_factory=DegradeConfig)
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class OutputConfig:
    path: str | None = None
    codec: str = MISSING
    crf: int | None = None
    preset: str | None = None
    pixel_format: str | None = None
    pictures: str = "png"
    fps: float = MISSING
    alpha: bool = False
    mask: bool = False


@dataclass
class ProvenanceConfig:
    enabled: bool = True
    key: str | None = None
    cert: str | None = None


@dataclass
class ServerConfig:
    host: str = MISSING
    port: int = MISSING
    token: str | None = None
    token_file: str | None = None


@dataclass
class TrainConfig:
    workspace: str = MISSING
    name: str = MISSING
    iterations: int = MISSING
    batch_size: Any = MISSING
    steps_per_dispatch: int = MISSING
    save_minutes: float = MISSING
    backups: int = within(0, 1000, MISSING)
    backup_minutes: float = within(0, math.inf, MISSING)
    rollback: str | None = None
    on_nan: str = MISSING
    nan_tries: int = within(1, 100, MISSING)
    log_every: int = MISSING
    evaluate_every: int = within(0, default=0)
    preview_every: int = MISSING
    preview: str = MISSING
    seed: int = MISSING
    precision: str = "float32"
    remat: str = "none"
    accumulate: int = 1
    ema: float | None = None
    init_from: str | None = None
    pretrain: bool = False
    freeze: list[str] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    stages: list[Any] = field(default_factory=list)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    data: TrainDataConfig = field(default_factory=TrainDataConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class ExtractConfig:
    workspace: str = MISSING
    size: int = MISSING
    face_type: str = MISSING
    max_faces: int | None = None
    identity: str | None = None
    identity_limit: float = MISSING
    filters: FiltersConfig = field(default_factory=FiltersConfig)
    frames: Any = None
    every: int = 1
    shard: int | None = None
    shards: int = 1
    masks: bool = False
    mask_model: str | None = None
    manual_fix: bool = False
    overwrite: bool = False
    smoothing: SmoothingConfig = field(default_factory=SmoothingConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    landmarks: LandmarksConfig = field(default_factory=LandmarksConfig)
    data: DataConfig = field(default_factory=DataConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class ConvertConfig:
    workspace: str = MISSING
    name: str | None = None
    batch_size: int = MISSING
    precision: str = "float32"
    morph: float | None = within(0, 1, None)
    dfm_face_type: str | None = None
    frames: Any = None
    shard: int | None = None
    shards: int = 1
    identity: str | None = None
    identity_distance: float = MISSING
    shots: str | None = None
    mask_model: str | None = None
    merge: MergeConfig = field(default_factory=MergeConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    provenance: ProvenanceConfig = field(default_factory=ProvenanceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class SortConfig:
    workspace: str = MISSING
    by: str = MISSING
    keep: int | None = None
    undo: bool = False
    dry_run: bool = False
    report: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class FacesetConfig:
    workspace: str = MISSING
    action: str = MISSING
    file: str | None = None
    people: bool = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    debug: bool = False


@dataclass
class MasksConfig:
    workspace: str = MISSING
    action: str = MISSING
    mask_model: str | None = None
    batch_size: int = MISSING
    precision: str = "float32"
    folder: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class ImportDflConfig:
    workspace: str = MISSING
    faces: str | None = None
    model_folder: str | None = None
    name: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class ExportDflConfig:
    workspace: str = MISSING
    faces: str | None = None
    name: str | None = None
    model_folder: str = MISSING
    dfl_name: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class ExportConfig:
    workspace: str = MISSING
    name: str | None = None
    format: str = MISSING
    precision: str = MISSING
    path: str | None = None
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class EvaluateConfig:
    workspace: str = MISSING
    result: str | None = None
    truth: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class StudioConfig:
    workspace: str = MISSING
    workspaces: str | None = None
    size: int = MISSING
    face_type: str = MISSING
    landmarks: LandmarksConfig = field(default_factory=LandmarksConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


@dataclass
class QueueConfig:
    workspace: str = MISSING
    debug: bool = False


@dataclass
class SwapConfig:
    src: str | None = None
    dst: str | None = None
    out: str | None = None
    workspace: str | None = None
    hours: float | None = within(0.001, 10_000, None)
    preset: str = MISSING
    truth: str | None = None
    overwrite: bool = False
    jobs: str | None = None
    extract: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)
    convert: list[str] = field(default_factory=list)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    debug: bool = False


SCHEMAS = {
    "swap": SwapConfig,
    "train": TrainConfig,
    "extract": ExtractConfig,
    "convert": ConvertConfig,
    "sort": SortConfig,
    "faceset": FacesetConfig,
    "masks": MasksConfig,
    "import_dfl": ImportDflConfig,
    "export": ExportConfig,
    "export_dfl": ExportDflConfig,
    "evaluate": EvaluateConfig,
    "studio": StudioConfig,
    "queue": QueueConfig,
}


def setting_names(schema: type, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings of a command's `schema`, those that hold others too."""
    types = get_type_hints(schema)
    for each in fields(schema):
        yield f"{prefix}{each.name}"
        if is_dataclass(types[each.name]):
            yield from setting_names(types[each.name], f"{prefix}{each.name}.")


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in `values` but empty groups."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@functools.cache
def register_schema(command: str) -> None:
    """Makes the schema of `command`, a name in SCHEMAS, known to Hydra as `<command>_schema`."""
    ConfigStore.instance().store(name=f"{command}_schema", node=SCHEMAS[command])


def config_dir() -> str:
    """`configs/` of the checkout when there is one, else the copy shipped in the wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "configs", here / "configs"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError("configs/ not found beside or inside odfs_jax")


def quoted(value: str) -> str:
    """`value` as a plain text in Hydra's grammar of overrides: it stands for itself in `key=`."""
    value = _without_references(value)
    # In quotes, backslashes escape before quotes only.
    value = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + m[2].replace("'", r"\'"), value)
    return f"'{value}'"


def _without_references(value: str) -> str:
    """`value` as OmegaConf has to store it, so that ${ in it refers to no other setting."""
    return re.sub(r"(\\*)\$\{", lambda m: 2 * m[1] + r"\${", value)


def with_plain_paths(arguments: Sequence[str]) -> list[str]:
    """`arguments` of a command line, with the values of PATHS quoted and ~ as the home folder.

    So [ ], commas and letters of any script are what they are in a shell. Values that the user
    has quoted himself for Hydra stay, and so do references, ${oc.env:HOME} say.
    """
    return [_with_plain_path(argument) for argument in arguments]


def _with_plain_path(argument: str) -> str:
    key, sign, value = argument.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not sign or key.split(".")[-1] not in PATHS or value in ("", "null", "???"):
        return argument
    if is_quoted or "${" in value:
        return argument
    if value == "~" or value.startswith("~/"):
        value = str(Path(value).expanduser())
    return f"{key}={quoted(value)}"


def with_stages(arguments: Sequence[str]) -> list[str]:
    """`arguments` of `swap`'s command line, with those of STAGES as a list for each command.

    `train.batch_size=4 train.seed=1` is there `train=['batch_size=4','seed=1']`.
    """
    settings: dict[str, list[str]] = {}
    others = []
    for argument in arguments:
        stage, dot, setting = argument.partition(".")
        if dot and stage in STAGES:
            settings.setdefault(stage, []).append(quoted(setting))
        else:
            others.append(argument)
    # Before the options (`--cfg job`), behind which argparse takes no more settings.
    return [f"{stage}=[{','.join(texts)}]" for stage, texts in settings.items()] + others


def fitting(own: Sequence[str], users: Sequence[str]) -> list[str]:
    """`own` settings without those that the user gives himself, then his."""
    keys = {setting.partition("=")[0].lstrip("+~") for setting in users}
    return [s for s in own if s.partition("=")[0] not in keys] + list(users)


_COMPOSING = Lock()  # Hydra has one global state


def compose(command: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration of `command`, a name in SCHEMAS, with `overrides` as on its command line.

    Raises Hydra's exceptions for keys and choices that there are not.
    """
    return compose_with_choices(command, overrides)[0]


def compose_with_choices(
    command: str, overrides: Sequence[str] = ()
) -> tuple[DictConfig, dict[str, str | None]]:
    """The configuration that `compose` returns, and the file that each group of configs/ took.

    None: the group took none. Raises Hydra's exceptions for keys and choices that there are not.
    """
    register_schema(command)
    with _COMPOSING, hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        config = hydra.compose(command, overrides=list(overrides), return_hydra_config=True)
    with open_dict(config):
        choices = config.pop("hydra").runtime.choices
    return config, {name.partition("@")[0]: choice for name, choice in choices.items()}


def misspelt(name: str, error: Exception) -> str | None:
    """What to say of a key that the command `name` does not have; None where that is not it.

    Names the settings that are spelled alike, those of that name elsewhere, or those of its group.
    """
    found = re.match(r"Could not override '([^']+)'", str(error))
    if not isinstance(error, HydraException) or not found or "not in '" not in str(error.__cause__):
        return None
    key, known = found[1], list(setting_names(SCHEMAS[name]))
    group, _, last = key.rpartition(".")
    elsewhere = [other for other in known if other.rpartition(".")[2] == last]
    own = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == group}
    line = f"{key}: no such setting"
    if alike := elsewhere or [own[n] for n in get_close_matches(last, own, 3, cutoff=0.7)]:
        return f"{line}; did you mean {' or '.join(alike[:3])}?"
    return f"{line}; there are {', '.join(own.values())}" if group and own else line


def require_complete(config: DictConfig) -> None:
    """Reads every value of a command's configuration once and resolves interpolations in place.

    Raises a UserError that names all keys which no schema has, all without a value, or the first
    that is out of its range.
    """
    unknown = sorted(_unknown(config))
    if unknown:
        raise UserError(f"no such settings: {', '.join(unknown)}")
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"settings without a value: {', '.join(missing)}")
    _resolve(config, OmegaConf.to_container(config, resolve=True))
    _check_ranges(config)


def _resolve(config: DictConfig | ListConfig, plain: dict | list) -> None:
    """Sets what refers to another setting to its `plain` value.

    OmegaConf.resolve would make a reference of ${ in a value that is a text.
    """
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if OmegaConf.is_interpolation(config, key):
            config[key] = _stored(value)
        elif isinstance(value, dict | list):
            _resolve(config[key], value)


def _stored(value: Any) -> Any:
    """`value` with all texts in it as OmegaConf has to store them."""
    if isinstance(value, dict):
        return {key: _stored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_stored(item) for item in value]
    return _without_references(value) if isinstance(value, str) else value


def _unknown(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that no schema has: Hydra's `+key=value` adds them without asking."""
    schema = OmegaConf.get_type(config)
    known = {f.name for f in fields(schema)} if is_dataclass(schema) else set(config)
    for key in config:
        if key not in known:
            yield f"{prefix}{key}"
        elif not OmegaConf.is_missing(config, key) and OmegaConf.is_dict(config[key]):
            yield from _unknown(config[key], f"{prefix}{key}.")


def _check_ranges(config: DictConfig, prefix: str = "") -> None:
    """Raises UserError for the first number that is out of its range, here and below."""
    schema = OmegaConf.get_type(config)
    if is_dataclass(schema):
        check_values(schema, prefix.removesuffix("."), config)
    for key, value in config.items():
        if OmegaConf.is_dict(value):
            _check_ranges(value, f"{prefix}{key}.")


def check_values(kind: type, key: str, values: Mapping[str, Any]) -> None:
    """Raises UserError for the first of `values` that its field of dataclass `kind` refuses.

    Checked are the fields which `within` made: for the range and for the type. `values` stand at
    `key` of the configuration; "" is its root.
    """
    for each in fields(kind):
        if "range" in each.metadata:
            _check_number(f"{key}.{each.name}".removeprefix("."), values[each.name], each)


def read_args(kind: type[T], key: str, args: Mapping[str, Any], source: str) -> T:
    """Dataclass `kind` filled from `args`, which stand at `key` of the configuration.

    Its fields may be numbers (made by `within`), bool and `str | None`. `source` says in the
    message of a missing key where it comes from: "take configs/detector/mtcnn.yaml". Raises
    UserError naming the key that is unknown, missing, of the wrong type or out of its range.
    """
    known = {each.name: each for each in fields(kind)}
    for name in args:
        if name not in known:
            raise UserError(
                f"{key}.{name}: no such setting; "
                + (f"known: {', '.join(known)}" if known else "there are none")
            )
    for name, each in known.items():
        if name not in args:
            raise UserError(f"{key}.{name}: no value; take {source}")
        value = args[name]
        if each.type is bool and not isinstance(value, bool):
            raise UserError(f"{key}.{name}={value}: expected true or false")
        if each.type == str | None and not (value is None or isinstance(value, str)):
            raise UserError(f"{key}.{name}={value}: expected a text")
    check_values(kind, key, args)
    return kind(**args)


def _check_number(key: str, value: Any, its: Field) -> None:
    """Raises UserError when `value` is no number of the type and in the range of field `its`."""
    kinds = get_args(its.type) or (its.type,)
    if value is None and type(None) in kinds:
        return
    low, high = its.metadata["range"]
    whole = int in kinds
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (right and low <= value <= high):
        limit = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
        raise UserError(f"{key}={value}: expected a {'whole ' if whole else ''}number {limit}")
