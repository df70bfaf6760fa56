"""The commands: each hands the configuration of its command line to the function that works.

Exit codes: 0 done, 2 a mistake in the input (one line on stderr), 130 stopped with Ctrl-C where
there is nothing to save, 1 a bug (traceback).

On Linux a command first replaces its process by one with huge pages: see `use_huge_pages`, and how
to prevent it.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from odfs_jax.errors import UserError
from odfs_jax.runtime.extras import extra
from odfs_jax.runtime.output import say
from odfs_jax.runtime.processes import keep_current_folder_out

if TYPE_CHECKING:
    from omegaconf import DictConfig

# New objects after which Python looks for cycles of them. After its own 700 it would look at what
# imports and traces make, which stays, so often that a training began a fifth later.
COLLECT_AFTER = 10_000


def command(work: Callable[[DictConfig], float | None]) -> Callable[[], None]:
    """An entry point without arguments: `work` with the configuration of the command line.

    The YAML of `configs/` that it composes has the name of `work`. What `work` imports itself is
    not imported for `--help` (see `explain`), `--cfg job` and misspelt keys.
    """
    name = work.__name__

    def main() -> None:
        if sys.argv[1:] == ["--version"]:
            print(version())
            return
        if not {"--help", "-h"} & set(sys.argv[1:]):
            use_huge_pages()
        gc.set_threshold(COLLECT_AFTER)
        keep_current_folder_out()
        from odfs_jax import command_line

        command_line.run(name, work)

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
    """Writes faces or a model as DeepFaceLab reads them."""
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


@command
def queue(config: DictConfig) -> None:
    """Works through the jobs that the studio has queued."""
    with extra("studio"):
        from odfs_jax.studio.queue import queue

    queue(config)


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
    from importlib import metadata

    import jax

    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"odfs-jax {metadata.version('odfs-jax')}, jax {jax.__version__}, Python {python}, {kind}"
    )


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
