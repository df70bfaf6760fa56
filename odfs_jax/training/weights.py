"""Parts of a network by name: taken over from another model, frozen, or begun afresh.

A parameter's name is its path, "decoder_src/face/ups/up_0/conv/kernel". A pattern is a glob that
stands for whatever it matches and all below: "decoder_src" is that whole decoder, "*/mask" every
mask branch.
"""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import optax

from odfs_jax.errors import UserError
from odfs_jax.training.state import TrainState

NEAR = 3  # names shown for a pattern that matches nothing


def parameter_name(path: Sequence[Any]) -> str:
    """The name of a leaf of the parameters, from its tree path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def shapes(params: Any) -> dict[str, tuple[int, ...]]:
    """{name: shape} of all parameters."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {parameter_name(path): leaf.shape for path, leaf in leaves}


def matches(name: str, patterns: Iterable[str]) -> bool:
    """True when a pattern stands for the parameter `name`."""
    return any(fnmatchcase(part, pattern) for part in _parts(name) for pattern in patterns)


def check_patterns(key: str, patterns: Sequence[str], params: Any) -> None:
    """Raises UserError for a pattern of the setting `key` that stands for none of `params`."""
    names = shapes(params)
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            parts = sorted({part for name in names for part in _parts(name)})
            near = difflib.get_close_matches(pattern, parts, NEAR, cutoff=0.3)
            near = near or sorted({name.split("/")[0] for name in names})
            raise UserError(f"{key}={pattern}: no such parameter; near it: {', '.join(near)}")


def freeze(
    tx: optax.GradientTransformation, patterns: Sequence[str]
) -> optax.GradientTransformation:
    """`tx` for all parameters but those that `patterns` stand for: they stay, without moments.

    Its `init` raises UserError when nothing is left to learn.
    """
    if not patterns:
        return tx

    def labels(params: Any) -> Any:
        if all(matches(name, patterns) for name in shapes(params)):
            raise UserError("freeze: every parameter is frozen, nothing is left to learn")

        def label(path: Sequence[Any], _: Any) -> str:
            return "frozen" if matches(parameter_name(path), patterns) else "learning"

        return jax.tree_util.tree_map_with_path(label, params)

    return optax.partition({"learning": tx, "frozen": optax.set_to_zero()}, labels)


def merge(params: Any, others: Any) -> tuple[Any, list[str]]:
    """`params` with those of `others` that have the same name and shape, and a list of the rest.

    In the list "-" is what only the others have and "+" what stays as it was; a parameter of
    another shape is in it twice.
    """
    mine, theirs = shapes(params), shapes(others)
    lines = [
        f"{sign} {name} {' x '.join(map(str, shape))}"
        for name in sorted(mine.keys() | theirs.keys())
        for sign, shape in (("-", theirs.get(name)), ("+", mine.get(name)))
        if shape is not None and mine.get(name) != theirs.get(name)
    ]
    leaves = jax.tree_util.tree_leaves_with_path(others)
    found = {parameter_name(path): leaf for path, leaf in leaves}

    def choose(path: Sequence[Any], leaf: jax.Array) -> jax.Array:
        name = parameter_name(path)
        return found[name] if theirs.get(name) == leaf.shape else leaf

    return jax.tree_util.tree_map_with_path(choose, params), lines


def reset(state: TrainState, fresh: TrainState, patterns: Sequence[str]) -> TrainState:
    """`state` with the parameters that `patterns` stand for from `fresh`.

    The optimiser begins anew, too: moments of what was there before would mislead it.
    """

    def choose(path: Sequence[Any], old: jax.Array, new: jax.Array) -> jax.Array:
        return new if matches(parameter_name(path), patterns) else old

    def chosen(old: Any, new: Any) -> Any:
        return None if old is None else jax.tree_util.tree_map_with_path(choose, old, new)

    return state.replace(
        params=chosen(state.params, fresh.params),
        ema=chosen(state.ema, fresh.ema),
        opt=at_step(fresh.opt, state.step),
    )


def at_step(opt: optax.OptState, step: jax.Array) -> optax.OptState:
    """A fresh optimiser's state, its learning rate where the schedule is at `step`."""

    def moved(node: Any) -> Any:
        is_schedule = isinstance(node, optax.ScaleByScheduleState)
        return node._replace(count=step) if is_schedule else node

    return jax.tree.map(moved, opt, is_leaf=lambda n: isinstance(n, optax.ScaleByScheduleState))


def _parts(name: str) -> list[str]:
    """The name and those of the parts above it: a/b/c as a, a/b, a/b/c."""
    steps = name.split("/")
    return ["/".join(steps[: i + 1]) for i in range(len(steps))]
