"""The `args` of a detector or landmarker, checked: a frozen dataclass says which there are."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from odfs_jax.errors import UserError

T = TypeVar("T")


def within(low: float, high: float = math.inf) -> Any:
    """A dataclass field for a number from `low` to `high`."""
    return dataclasses.field(metadata={"range": (low, high)})


def read_settings(kind: type[T], key: str, args: Mapping[str, Any], source: str) -> T:
    """`kind` filled from `args`, which stand at `key` of the configuration and in file `source`.

    Fields may be float, int, bool and `str | None`. Raises UserError naming the key that is
    unknown, missing, of the wrong type or out of its range.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in args:
        if name not in fields:
            known = f"known: {', '.join(fields)}" if fields else "there are none"
            raise UserError(f"{key}.{name}: no such setting; {known}")
    for name, field in fields.items():
        if name not in args:
            raise UserError(f"{key}.{name}: no value; take {source}")
        _check(f"{key}.{name}", args[name], field)
    return kind(**args)


def _check(key: str, value: Any, field: dataclasses.Field) -> None:
    if field.type is bool:
        right, expected = isinstance(value, bool), "true or false"
    elif field.type in (int, float):
        low, high = field.metadata["range"]
        number = isinstance(value, int if field.type is int else int | float)
        right = number and not isinstance(value, bool) and low <= value <= high
        limit = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
        expected = f"{'a whole number' if field.type is int else 'a number'} {limit}"
    else:
        right, expected = value is None or isinstance(value, str), "a text"
    if not right:
        raise UserError(f"{key}={value}: expected {expected}")
