"""Python processes that the program starts. None of them imports from the current folder.

`python -c`, `python -m` and the processes of `multiprocessing` look for modules in the current
folder first. That may be a stranger's workspace, and a `yaml.py` in it would be run.
"""

import os
import sys
from multiprocessing import get_context
from multiprocessing.context import SpawnContext


def python_command(*arguments: str) -> list[str]:
    """The command line of this Python with `arguments`, such as "-c" and a program."""
    return [sys.executable, "-P", *arguments]


def spawn_context() -> SpawnContext:
    """For pools of processes, started afresh: a fork of a process that runs JAX may hang."""
    keep_current_folder_out()
    return get_context("spawn")


def keep_current_folder_out() -> None:
    """From now on, no Python process that this one or a library starts has it on `sys.path`."""
    os.environ["PYTHONSAFEPATH"] = "1"
