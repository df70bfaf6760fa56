"""The commands: each composes its configuration with Hydra and hands it to the function that works.

Exit codes: 0 done, 2 a mistake in the input (one line on stderr), 130 stopped with Ctrl-C where
there is nothing to save, 1 a bug (traceback).

On Linux a command first replaces its process by one with huge pages: see `use_huge_pages`, and how
to prevent it.
"""

import argparse
import errno
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from odfs_jax import explain
from odfs_jax.config import (
    SCHEMAS,
    config_dir,
    misspelt,
    register_schemas,
    require_complete,
    setting_names,
    with_plain_paths,
    with_stages,
)
from odfs_jax.errors import UserError, printable
from odfs_jax.runtime.output import say, start_logging
from odfs_jax.runtime.processes import keep_current_folder_out

NO_LIBRARY = "cannot open shared object file"  # in the words of the system's loader


def command(work: Callable[[DictConfig], float | None]) -> Callable[[], None]:
    """An entry point without arguments: `work` with the configuration of the command line.

    The YAML of `configs/` that it composes has the name of `work`. What `work` imports itself is
    not imported for `--help` (see `explain`), `--cfg job` and misspelt keys.
    """
    name = work.__name__
    shown = f"odfs-{name.replace('_', '-')}"

    def main() -> None:
        if sys.argv[1:] == ["--version"]:
            print(version())
            return
        asks_help = bool({"--help", "-h"} & set(sys.argv[1:]))
        if not asks_help:
            use_huge_pages()
        keep_current_folder_out()
        sweeps = bool({"-m", "--multirun"} & set(sys.argv))
        if name == "swap":
            sys.argv[1:] = with_stages(sys.argv[1:])
        if not sweeps:  # there, commas separate values
            sys.argv[1:] = with_plain_paths(sys.argv[1:])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of Hydra's own printer
        register_schemas()
        configs: list[DictConfig] = []  # run below, for Hydra prints a line of its own on errors
        compose = hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)

        def run(config: DictConfig) -> float | None:
            start_logging()
            require_complete(config)
            return work(config)

        def job(config: DictConfig) -> float | None:  # where the launcher wants it, maybe far away
            register_schemas()
            if name == "train":
                claim_name(config)
            return run(config)  # what a sweeper minimizes

        try:
            refuse_dashes(name, sys.argv[1:])
            if asks_help:
                settings = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
                about = inspect.getdoc(work).splitlines()[0]
                lines = explain.help_page(name, about, settings, *explain.page_format())
                sys.stdout.write("".join(f"{line}\n" for line in lines))
                sys.stdout.flush()
                return
            compose(job if sweeps else configs.append)()
            for config in configs:
                run(config)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output, `head` say, has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (
            UserError, HydraException, OmegaConfBaseException, OSError, ImportError
        ) as error:  # fmt: skip
            if "debug=true" in sys.argv or not _is_users(error):
                raise
            line = misspelt(name, error) or _one_line(error)
            print(f"{shown}: {printable(line)}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(f"{shown}: stopped; what was finished before is whole", file=sys.stderr)
            sys.exit(130)

    main.__name__, main.__doc__ = name, work.__doc__
    return main


@command
def swap(config: DictConfig) -> None:
    """Does everything: two clips in, a swapped clip and a report of it out."""
    from odfs_jax.swap.swap import swap

    swap(config)


@command
def train(config: DictConfig) -> float | None:
    """Trains a model on two facesets."""
    from odfs_jax.training.train import train

    return train(config)


@command
def extract(config: DictConfig) -> None:
    """Extracts the faces of a clip, automatically or by hand."""
    from odfs_jax.extraction.extract import extract

    extract(config)


@command
def convert(config: DictConfig) -> None:
    """Puts the model's faces into the clip."""
    from odfs_jax.conversion.convert import convert

    convert(config)


@command
def sort(config: DictConfig) -> None:
    """Renames aligned faces to an order."""
    from odfs_jax.curation.sort import sort

    sort(config)


@command
def faceset(config: DictConfig) -> None:
    """Looks at, checks or packs aligned faces."""
    from odfs_jax.curation.faceset import faceset

    faceset(config)


@command
def masks(config: DictConfig) -> None:
    """Writes, removes or exports masks of aligned faces."""
    from odfs_jax.curation.masks import masks

    masks(config)


@command
def import_dfl(config: DictConfig) -> None:
    """Takes over facesets and models of DeepFaceLab."""
    from odfs_jax.interop.import_dfl import import_dfl

    import_dfl(config)


@command
def export(config: DictConfig) -> None:
    """Writes a model as other programs read it."""
    from odfs_jax.interop.export import export

    export(config)


@command
def export_dfl(config: DictConfig) -> None:
    """Writes a model as DeepFaceLab reads it."""
    from odfs_jax.interop.import_dfl import export_dfl

    export_dfl(config)


@command
def evaluate(config: DictConfig) -> None:
    """Measures a swapped clip, with or without truth."""
    from odfs_jax.evaluation.evaluate import evaluate

    evaluate(config)


@command
def studio(config: DictConfig) -> None:
    """Serves the browser studio until Ctrl-C."""
    from odfs_jax.studio.server import studio

    studio(config)


def window() -> int:
    """Shows the preview and the losses of a run that trains, in a window.

    Examples:
      odfs window models/h64
      odfs window night/models/saehd
      odfs window /mnt/other-host/workspace/models/anna
    """
    parser = _parser("odfs-window", window)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the model's, models/h64 say")
    folder = parser.parse_args().folder
    from odfs_jax.training.control import show_window

    try:
        show_window(folder)
    except UserError as error:
        print(f"odfs-window: {error}", file=sys.stderr)
        return 2
    return 0


def verify() -> int:
    """Checks what files say of their origin.

    Exit code 0: all are signed and unaltered; 1: one was altered; 3: one is not signed; 2: a
    mistake.

    Examples:
      odfs verify result.mp4
      odfs verify result.mp4 faces.zip anna_full_128.dfm
      odfs verify frames
    """
    parser = _parser("odfs-verify", verify)
    parser.add_argument("paths", type=Path, nargs="*", metavar="FILE_OR_FOLDER")
    paths = parser.parse_args().paths
    if not paths:
        print("odfs-verify: which file? Give its path", file=sys.stderr)
        return 2
    from odfs_jax.provenance.verify import ALTERED
    from odfs_jax.provenance.verify import verify as read_marks

    try:
        verdicts = [read_marks(path) for path in paths]
    except UserError as error:
        print(f"odfs-verify: {error}", file=sys.stderr)
        return 2
    for verdict in verdicts:
        say(*verdict.lines())
    codes = {verdict.code for verdict in verdicts}
    return ALTERED if ALTERED in codes else max(codes)


def _parser(name: str, work: Callable[[], int]) -> argparse.ArgumentParser:
    """For a command without settings, whose docstring is its help."""
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(
        prog=name, description=inspect.getdoc(work), formatter_class=formatter
    )


def version() -> str:
    """Our version, those of what computes, and the devices that there are."""
    import jax

    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"odfs-jax {metadata.version('odfs-jax')}, jax {jax.__version__}, Python {python}, {kind}"
    )


def refuse_dashes(name: str, arguments: Sequence[str]) -> None:
    """Raises UserError for `--batch_size 4` and the like: settings are written without dashes."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
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


def use_huge_pages() -> None:
    """Replaces this process by the same command with malloc on huge pages (Linux).

    XLA:CPU asks for new working memory at each step, and glibc gives it as 4 kB pages that
    fault one by one: without this, full-width H64 spends a quarter of a step in the kernel. glibc
    reads GLIBC_TUNABLES when a process starts and at no other time.

    It does nothing where GLIBC_TUNABLES is set already, to anything (so `GLIBC_TUNABLES= python
    train.py ...` prevents it), nor under a debugger or tracer, which would lose the process.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ and not _is_traced():
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)


def _is_traced() -> bool:
    """True under pdb, an IDE's debugger or a coverage tracer."""
    if sys.gettrace() is not None:
        return True
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12 and later
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None


def _is_users(error: Exception) -> bool:
    """True for what the user can mend.

    An OSError only if the disk or a permission is at fault, an ImportError only if a library of
    the system, libGL say, is not there.
    """
    if isinstance(error, ImportError):
        return NO_LIBRARY in str(error)
    disk = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
    return isinstance(error, UserError | HydraException) or (
        isinstance(error, OmegaConfBaseException) or error.errno in disk
    )


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
