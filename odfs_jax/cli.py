"""The commands. Each composes its configuration with Hydra and hands it to one function.

Exit codes: 0 done, 2 a mistake in the input (one line on stderr), 130 stopped with Ctrl-C where
there is nothing to save, 1 a bug (traceback).
"""

import errno
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from odfs_jax.config import config_dir, register_schemas, require_complete
from odfs_jax.errors import UserError

log = logging.getLogger(__name__)


def command(name: str, task: str) -> Callable[[], None]:
    """The command `name` (its YAML's name), which runs `task`, "module:function" of a config."""

    def main() -> None:
        use_huge_pages()
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of Hydra's own printer
        register_schemas()
        configs: list[DictConfig] = []  # run below, for Hydra prints a line of its own on errors
        compose = hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)
        try:
            compose(configs.append)()
            for config in configs:
                _run(task, config)
            sys.stdout.flush()
        except BrokenPipeError:  # who reads what we print, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
            if "debug=true" in sys.argv or not _is_users(error):
                raise
            print(f"odfs-{name}: {_one_line(error)}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(f"odfs-{name}: stopped; what was finished before is whole", file=sys.stderr)
            sys.exit(130)

    return main


def use_huge_pages() -> None:
    """Starts the program again with malloc on huge pages, unless GLIBC_TUNABLES is set already.

    XLA:CPU asks for its working memory anew at each step, and glibc gives it as 4 kB pages that
    fault one by one: without this, full-width H64 spends a quarter of a step in the kernel. glibc
    reads the setting when a process starts and at no other time.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)


def _run(task: str, config: DictConfig) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("odfs_jax").setLevel(logging.INFO)
    require_complete(config)
    module, function = task.split(":")
    getattr(importlib.import_module(module), function)(config)


def _is_users(error: Exception) -> bool:
    """True for what the user can mend; an OSError only if the disk or a permission is at fault."""
    disk = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
    return isinstance(error, UserError | HydraException) or (
        isinstance(error, OmegaConfBaseException) or error.errno in disk
    )


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'writing'}: {error.strerror}"
    text = " ".join(_message(error).split())
    text = re.sub(r"\.? To append to your config use \S+", "", text)  # it would be refused
    cause = error.__cause__  # Hydra's own words for an override, then what OmegaConf said of it
    if isinstance(error, HydraException) and cause is not None:
        return f"{text}: {_one_line(cause)}"
    return text.split(" Config search path:")[0]


def _message(error: BaseException) -> str:
    """The text of `error` without the type names that OmegaConf appends."""
    lines = str(error).splitlines()
    return "\n".join(line for line in lines if "object_type=" not in line)


train = command("train", "odfs_jax.training.loop:train")
extract = command("extract", "odfs_jax.studio.by_hand:extract")
convert = command("convert", "odfs_jax.conversion.convert:convert")
sort = command("sort", "odfs_jax.curation.sort:sort")
faceset = command("faceset", "odfs_jax.curation.faceset:faceset")
studio = command("studio", "odfs_jax.studio.run:studio")
