"""A command line becomes a configuration that one function works with; a mistake becomes a line.

Apart from `cli`, for Hydra takes a tenth of a second to import, which the process that `cli`
replaces need not spend.
"""

import errno
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from odfs_jax import explain
from odfs_jax.config import (
    SCHEMAS,
    config_dir,
    misspelt,
    register_schema,
    require_complete,
    setting_names,
    with_plain_paths,
    with_stages,
)
from odfs_jax.errors import UserError, printable
from odfs_jax.runtime.output import start_logging

# Hydra's, as far as they may stand beside --help
FOLDER_OPTIONS = ("--config-dir", "-cd")
OPTIONS_WITH_VALUE = (*FOLDER_OPTIONS, "--cfg", "-c", "--package", "-p")
LAUNCHERS = ("joblib", "ray", "submitit")  # the modules that Hydra's run jobs with
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
NO_LIBRARY = "cannot open shared object file"  # in the words of the system's loader


def run(name: str, work: Callable[[DictConfig], float | None]) -> None:
    """Calls `work` with the configuration that `sys.argv` gives the command `name`.

    In a sweep (`--multirun`) once for each job; not at all for `--help` (see `explain`) and
    `--cfg job`. Mistakes end the process with the exit codes of `cli`.
    """
    shown = f"odfs-{name.replace('_', '-')}"
    sweeps = bool({"-m", "--multirun"} & set(sys.argv))
    if name == "swap":
        sys.argv[1:] = with_stages(sys.argv[1:])
    if not sweeps:  # there, commas separate values
        sys.argv[1:] = with_plain_paths(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of Hydra's own printer
    register_schema(name)
    configs: list[DictConfig] = []  # run below, for Hydra prints a line of its own on errors
    compose = hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)

    def checked(config: DictConfig) -> float | None:
        start_logging()
        require_complete(config)
        return work(config)

    def job(config: DictConfig) -> float | None:  # where the launcher wants it, maybe far away
        register_schema(name)
        if name == "train":
            claim_name(config)
        return checked(config)  # what a sweeper minimizes

    try:
        check_grammar(name, sys.argv[1:])
        if {"--help", "-h"} & set(sys.argv[1:]):
            about = inspect.getdoc(work).splitlines()[0]
            settings, folder = settings_of(sys.argv[1:], sweeps), own_folder(sys.argv[1:])
            lines = explain.help_page(name, about, settings, folder, *explain.page_format())
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()
            return
        compose(job if sweeps else configs.append)()
        for config in configs:
            checked(config)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` say, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if "debug=true" in sys.argv or not _is_users(error):
            raise
        line = misspelt(name, error) or _one_line(error)
        print(f"{shown}: {printable(line)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{shown}: stopped; what was finished before is whole", file=sys.stderr)
        sys.exit(130)


def settings_of(arguments: Sequence[str], sweeps: bool) -> list[str]:
    """The settings among `arguments`, without Hydra's options and what these take.

    With `sweeps` those with several values are left out. Raises Hydra's exceptions.
    """
    pairs = zip(["", *arguments], arguments, strict=False)
    settings = [
        argument
        for before, argument in pairs
        if not argument.startswith("-") and before not in OPTIONS_WITH_VALUE
    ]
    parsed = OverridesParser.create().parse_overrides(settings)
    return [one.input_line for one in parsed if not (sweeps and one.is_sweep_override())]


def own_folder(arguments: Sequence[str]) -> Path | None:
    """The user's folder of YAMLs that `--config-dir` names; None: there is none.

    Raises UserError when it is no folder.
    """
    found = None
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, _, value = argument.partition("=")
        if option in FOLDER_OPTIONS:
            found = Path(value or following)
    if found is not None and not found.is_dir():
        raise UserError(f"--config-dir {found}: no such folder")
    return found


def check_grammar(name: str, arguments: Sequence[str]) -> None:
    """Raises UserError for `--batch_size 4`, `clip.mp4` and the like, which are no `KEY=VALUE`."""
    around = zip(["", *arguments[:-1]], arguments, [*arguments[1:], ""], strict=True)
    for before, argument, following in around:
        if "=" not in argument and argument[:1] not in ("-", "~") and before[:1] != "-":
            page = f"odfs {name.replace('_', '-')} --help"
            raise UserError(f"{argument}: settings are written KEY=VALUE; see {page}")
        key, sign, value = argument.lstrip("-").partition("=")
        key = key.replace("-", "_")
        if argument.startswith("-") and key in setting_names(SCHEMAS[name]):
            value = value if sign else following
            value = "..." if not value or value.startswith("-") else value
            raise UserError(f"{argument}: settings have no dashes; write {key}={value}")


def claim_name(config: DictConfig) -> None:
    """Keeps a job of a sweep (`--multirun`) from going on with the run of another one.

    The names that are taken lie in the sweep's folder, which all its jobs see; a job that is
    started again finds its own. Raises UserError when another job trains under `config.name`.
    """
    settings = HydraConfig.get()
    taken = Path(settings.runtime.cwd, settings.sweep.dir, "names", quote(config.name, safe=""))
    taken.parent.mkdir(parents=True, exist_ok=True)
    number = str(settings.job.num)
    try:
        with taken.open("x") as file:
            file.write(number)
    except FileExistsError:
        if taken.read_text() != number:
            raise UserError(
                f"name={config.name}: another job of this sweep trains under this name; "
                "give each its own, such as name='run_${hydra:job.num}'"
            ) from None


def _is_users(error: Exception) -> bool:
    """True for what the user can mend.

    An OSError only if the disk or a permission is at fault, an ImportError only if a library of
    the system, libGL say, is not there. What launchers raise themselves tells of a worker that was
    killed.
    """
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return True  # Hydra's for a file that is not there is an OSError too
    if isinstance(error, ImportError):
        return NO_LIBRARY in str(error)
    if isinstance(error, OSError):
        return error.errno in DISK
    return type(error).__module__.partition(".")[0] in LAUNCHERS


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'writing'}: {error.strerror}"
    text = " ".join(_message(error).split())
    if isinstance(error, ImportError):
        return (
            f"{text}; install it, or, where only OpenCV wants it, take OpenCV without windows: "
            "pip uninstall opencv-python; pip install opencv-python-headless"
        )
    text = re.sub(r"\.? To append to your config use \S+", "", text)  # it would be refused
    cause = error.__cause__  # Hydra's own words for an override, then what OmegaConf said of it
    if isinstance(error, HydraException) and cause is not None:
        return f"{text}: {_one_line(cause)}"
    return text.split(" Config search path:")[0]


def _message(error: BaseException) -> str:
    """The text of `error` without the type names that OmegaConf appends."""
    lines = str(error).splitlines()
    return "\n".join(line for line in lines if "object_type=" not in line)
