"""Libraries that an install need not have: each comes with an extra of the package."""

from collections.abc import Iterator
from contextlib import contextmanager

from odfs_jax.errors import UserError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """For the imports of what the extra `name` installs. Raises UserError where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; {advice(name)}") from error


def advice(name: str) -> str:
    """How to install the extra `name`."""
    return f"run: pip install 'odfs-jax[{name}]'"
