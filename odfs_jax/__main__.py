"""`odfs COMMAND ...`: every command behind one name. `python -m odfs_jax` is the same."""

import multiprocessing
import sys
from difflib import get_close_matches

COMMANDS = (  # each is a function of `odfs_jax.cli`, in the order in which one needs them
    "swap",
    "extract",
    "sort",
    "faceset",
    "masks",
    "train",
    "window",
    "convert",
    "evaluate",
    "export",
    "verify",
    "studio",
    "queue",
    "import-dfl",
    "export-dfl",
)


def main() -> None:
    """Runs the command that the first argument names. Exit codes are those of `odfs_jax.cli`."""
    multiprocessing.freeze_support()  # a process of a pool, in the prebuilt program: ends here
    from odfs_jax import cli
    from odfs_jax.errors import printable

    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "--version":
        print(cli.version())
    elif name in ("--help", "-h"):
        print("odfs COMMAND [KEY=VALUE ...]\n")
        for command in COMMANDS:
            print(f"  {command:12}{_function(command).__doc__.splitlines()[0]}")
        print("\nExamples and settings of one: odfs COMMAND --help. Versions: odfs --version")
    elif (command := name.replace("_", "-")) in COMMANDS:
        sys.argv = [f"odfs-{command}", *arguments]
        sys.exit(_function(command)())
    else:
        alike = get_close_matches(name, COMMANDS, 1)
        cure = f"did you mean {alike[0]}?" if alike else "odfs --help names them"
        print(f"odfs: {printable(name)}: no such command; {cure}", file=sys.stderr)
        sys.exit(2)


def _function(command: str):
    from odfs_jax import cli

    return getattr(cli, command.replace("-", "_"))


if __name__ == "__main__":
    main()
