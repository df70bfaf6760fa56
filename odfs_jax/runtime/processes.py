"""Processes that the program starts of itself. None of them imports from the current folder.

`python -c`, `python -m` and the processes of `multiprocessing` look for modules in the current
folder first. That may be a stranger's workspace, and a `yaml.py` in it would be run.
"""

import os
import sys
from multiprocessing import get_context
from multiprocessing.context import SpawnContext


def own_command(*arguments: str) -> list[str]:
    """The command line of this program with `arguments`: a command of `odfs` and its settings."""
    if getattr(sys, "frozen", False):  # the prebuilt program, which is no Python
        return [sys.executable, *arguments]
    return [sys.executable, "-P", "-m", "odfs_jax", *arguments]


def spawn_context() -> SpawnContext:
    """For pools of processes, started afresh: a fork of a process that runs JAX may hang."""
    keep_current_folder_out()
    return get_context("spawn")


def keep_current_folder_out() -> None:
    """From now on, no Python process that this one or a library starts has it on `sys.path`."""
    os.environ["PYTHONSAFEPATH"] = "1"
