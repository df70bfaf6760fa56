"""Pages of docs/ taken at their word: the commands in their blocks and what these print."""

import re
import shlex
from collections.abc import Callable


def steps(page: str) -> list[tuple[list[str], list[str]]]:
    """(arguments, printed lines) of each `$ ...` in a page's blocks that name no language."""
    found = []
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        for line in block.splitlines() if not kind else []:
            if line.startswith("$ "):
                found.append((shlex.split(line[2:]), []))
            else:
                found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """`line` with every number replaced."""
    return re.sub(r"-?\d+(\.\d+)?", "#", line)


def assert_printed(
    settings: list[str],
    written: list[str],
    lines: list[str],
    shape: Callable[[str], str] = shape,
) -> None:
    """A command with `settings` printed `lines`: those that are `written`, and without `...` no
    others; numbers may differ."""
    printed = [shape(line) for line in lines]
    for line in map(shape, written):
        assert line == "..." or line in printed, f"{settings}: {line} is not in {printed}"
    assert "..." in written or len(written) == len(printed), f"{settings}: {printed}"
