"""Parts of a network by name: taken over from another model, frozen, or started over.

A parameter's name is its path, "decoder_src/face/ups/up_0/conv/kernel". A pattern is a glob that
stands for all that it matches and all below: "decoder_src" is that whole decoder, "*/mask" every
mask branch. A user may put a network's name before it: "autoencoder/decoder_src".
"""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import optax

from odfs_jax.errors import UserError
from odfs_jax.saved_model import named, parameter_name, shapes
from odfs_jax.training.step import NetState, TrainState

NEAR = 3  # names shown for a pattern that matches nothing


def patterns_of(
    net: str, patterns: Sequence[str], nets: Collection[str], default: str
) -> list[str]:
    """Those of `patterns` for the network `net`, without its name.

    A pattern that does not begin with the name of one of `nets` is for the network `default`. The
    name alone stands for the whole network.
    """
    own = []
    for pattern in patterns:
        first, _, rest = pattern.partition("/")
        if first in nets:
            own += [rest or "*"] if first == net else []
        elif net == default:
            own.append(pattern)
    return own


def matches(name: str, patterns: Iterable[str]) -> bool:
    """True when a pattern stands for the parameter `name`."""
    return any(fnmatchcase(part, pattern) for part in _parts(name) for pattern in patterns)


def check_patterns(key: str, patterns: Sequence[str], params: Any) -> None:
    """Raises UserError for a pattern of the setting `key` that matches no name of `params`."""
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
    """The optimizer `tx`, but the parameters that `patterns` stand for stay, without moments.

    `init` of the result raises UserError when no parameter is left to train.
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
    """(`params` with the values of `others` where name and shape agree, lines about the rest).

    A line begins with "-" for a parameter of `others` that was not taken, with "+" for one of
    `params` that stays as it was; a parameter of two shapes has a line of each.
    """
    mine, theirs = shapes(params), shapes(others)
    lines = [
        f"{sign} {name} {' x '.join(map(str, shape))}"
        for name in sorted(mine.keys() | theirs.keys())
        for sign, shape in (("-", theirs.get(name)), ("+", mine.get(name)))
        if shape is not None and mine.get(name) != theirs.get(name)
    ]
    found = named(others)

    def choose(path: Sequence[Any], leaf: jax.Array) -> jax.Array:
        name = parameter_name(path)
        return found[name] if theirs.get(name) == leaf.shape else leaf

    return jax.tree_util.tree_map_with_path(choose, params), lines


def reset(
    state: TrainState, fresh: TrainState, patterns: Mapping[str, Sequence[str]]
) -> TrainState:
    """`state` with the parameters that `patterns` stand for from `fresh`, by network.

    The optimizer of a network with such parameters starts over: moments of what was there before
    would mislead it.
    """
    nets = {
        name: _reset_net(net, fresh.nets[name], patterns[name], state.step)
        for name, net in state.nets.items()
    }
    return state.replace(nets=nets)


def _reset_net(
    net: NetState, fresh: NetState, patterns: Sequence[str], step: jax.Array
) -> NetState:
    if not patterns:
        return net

    def choose(path: Sequence[Any], old: jax.Array, new: jax.Array) -> jax.Array:
        return new if matches(parameter_name(path), patterns) else old

    params = jax.tree_util.tree_map_with_path(choose, net.params, fresh.params)
    ema = net.ema
    if ema is not None:
        ema = jax.tree_util.tree_map_with_path(choose, ema, fresh.ema)
    return NetState(params, at_step(fresh.opt, step), ema)


def at_step(opt: optax.OptState, step: jax.Array) -> optax.OptState:
    """A fresh optimizer's state, with the learning rate where the schedule is at `step`."""

    def moved(node: Any) -> Any:
        is_schedule = isinstance(node, optax.ScaleByScheduleState)
        # A copy: a step reuses the memory of its state, which must not hold one array twice.
        return node._replace(count=jnp.copy(step)) if is_schedule else node

    return jax.tree.map(moved, opt, is_leaf=lambda n: isinstance(n, optax.ScaleByScheduleState))


def _parts(name: str) -> list[str]:
    """The name and those of the parts above it: a/b/c as a, a/b, a/b/c."""
    steps = name.split("/")
    return ["/".join(steps[: i + 1]) for i in range(len(steps))]
