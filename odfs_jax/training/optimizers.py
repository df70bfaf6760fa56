"""Optimizers and learning-rate schedules from the settings; moments kept in half the memory."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from odfs_jax.errors import UserError
from odfs_jax.training.step import Thin, TrainState


def _adam(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adam(rate, b1=_off_half(config["b1"]), b2=config["b2"])


def _adabelief(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adabelief(rate, b1=_off_half(config["b1"]), b2=config["b2"])


def _adafactor(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    momentum = config["b1"] or None  # null: none is kept at all
    return optax.adafactor(rate, multiply_by_parameter_scale=False, momentum=momentum)


DROPOUT_DRAWS = 1 << 16  # folded into a step's key, beyond those of the samples
EPSILON_2020 = 1e-6  # of DeepFaceLab 2.0's optimizers, added to the root


class BeliefState(NamedTuple):
    """The state of `scale_by_belief_2020`, each field a tree like the parameters."""

    mean: optax.Updates  # of the gradient
    scatter: optax.Updates  # of the gradient about that mean


def scale_by_belief_2020(b1: float, b2: float) -> optax.GradientTransformation:
    """AdaBelief without the correction of its moments' start, as DeepFaceLab 2.0 has it."""

    def init(params: optax.Params) -> BeliefState:
        return BeliefState(*(jax.tree.map(jnp.zeros_like, params) for _ in BeliefState._fields))

    def update(
        grads: optax.Updates, state: BeliefState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, BeliefState]:
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, grads)
        scatter = jax.tree.map(
            lambda s, g, m: b2 * s + (1 - b2) * (g - m) ** 2, state.scatter, grads, mean
        )
        steps = jax.tree.map(lambda m, s: m / (jnp.sqrt(s) + EPSILON_2020), mean, scatter)
        return steps, BeliefState(mean, scatter)

    return optax.GradientTransformation(init, update)


def _adabelief_2020(
    config: Mapping[str, Any], rate: optax.Schedule
) -> optax.GradientTransformation:
    belief = scale_by_belief_2020(_off_half(config["b1"]), config["b2"])
    return optax.chain(belief, optax.scale_by_learning_rate(rate))


def _rmsprop(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    scale = optax.scale_by_rms(_off_half(config["b1"]), EPSILON_2020, eps_in_sqrt=False)
    return optax.chain(scale, optax.scale_by_learning_rate(rate))


SOAP_LARGEST = 512  # rows of the largest outer product whose eigenvectors are followed
SOAP_EVERY = 10  # iterations between two steps of the iteration that follows them


class SoapState(NamedTuple):
    """The state of `scale_by_soap`, each field a tree like the parameters.

    The moments of a rotated kernel are matrices [long, short], in its basis. `outer` and `basis`
    are [short, short]; None: the parameter is not rotated.
    """

    count: jax.Array
    mean: optax.Updates  # of the gradient
    square: optax.Updates  # mean of its square
    outer: optax.Updates  # mean of gradient^T gradient
    basis: optax.Updates  # its eigenvectors, in columns


def scale_by_soap(b1: float, b2: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam in the eigenbasis of the gradient's outer product, on the shorter side of each kernel.

    Source: Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", ICLR 2025; its
    one-sided variant. A kernel [..., features] counts as the matrix of its last axis and all the
    others. Vectors, and kernels whose shorter side is above SOAP_LARGEST, get Adam itself. `b1`,
    `b2` and `eps` are Adam's.
    """

    def matrix(x: jax.Array) -> jax.Array:
        """The kernel `x` as [long, short]."""
        x = x.reshape(-1, x.shape[-1])
        return x if x.shape[0] >= x.shape[1] else x.T

    def kernel(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The kernel of `shape` that `matrix` made `x` of."""
        return (x if x.shape[1] == shape[-1] else x.T).reshape(shape)

    def is_rotated(p: jax.Array) -> bool:
        return p.ndim > 1 and 1 < min(p.size // p.shape[-1], p.shape[-1]) <= SOAP_LARGEST

    def init(params: optax.Params) -> SoapState:
        def of_rotated(make: Callable[[jax.Array], jax.Array]) -> optax.Updates:
            return jax.tree.map(lambda p: make(matrix(p)) if is_rotated(p) else None, params)

        def zeros() -> optax.Updates:
            return jax.tree.map(lambda p: jnp.zeros_like(matrix(p) if is_rotated(p) else p), params)

        return SoapState(
            count=jnp.int32(0),
            mean=zeros(),
            square=zeros(),
            outer=of_rotated(lambda m: jnp.zeros((m.shape[1], m.shape[1]))),
            basis=of_rotated(lambda m: jnp.eye(m.shape[1])),
        )

    def update(
        grads: optax.Updates, state: SoapState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, SoapState]:
        count = state.count + 1
        is_due = state.count % SOAP_EVERY == 0

        def adam(grad, mean, square):
            mean = b1 * mean + (1 - b1) * grad
            square = b2 * square + (1 - b2) * grad**2
            root = jnp.sqrt(square / (1 - b2**count))
            return mean / (1 - b1**count) / (root + eps), mean, square

        def rotated_adam(grad, mean, square, outer, basis):
            flat = matrix(grad)

            def follow(mean, outer, basis):
                """One step of orthogonal iteration; the mean goes along into the new basis."""
                decay = b2**SOAP_EVERY
                outer = decay * outer + (1 - decay) * flat.T @ flat
                new, _ = jnp.linalg.qr(outer @ basis)
                return mean @ (basis.T @ new), outer, new

            keep = lambda *values: values  # noqa: E731
            mean, outer, basis = jax.lax.cond(is_due, follow, keep, mean, outer, basis)
            step, mean, square = adam(flat @ basis, mean, square)
            return kernel(step @ basis.T, grad.shape), mean, square, outer, basis

        leaves, tree = jax.tree.flatten(grads)
        columns = zip(leaves, *map(tree.flatten_up_to, state[1:]), strict=True)
        results = [
            (*adam(*own[:3]), None, None) if own[-1] is None else rotated_adam(*own)
            for own in columns
        ]
        steps, *fields = map(tree.unflatten, zip(*results, strict=True))
        return steps, SoapState(count, *fields)

    return optax.GradientTransformation(init, update)


def _soap(config: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    soap = scale_by_soap(config["b1"], config["b2"])
    return optax.chain(soap, optax.scale_by_learning_rate(rate))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": _adam,
    "adabelief": _adabelief,
    "adabelief_2020": _adabelief_2020,
    "rmsprop": _rmsprop,
    "adafactor": _adafactor,
    "soap": _soap,
}
MOMENTS = ("float32", "bfloat16")
MEANS = {"mu", "mean"}  # names in states, optax's and ours, of the gradient's running mean
DROPPED_BITS = 16  # low bits of a float32 that a bfloat16 does not have


def make_optimizer(config: Mapping[str, Any], iterations: int) -> optax.GradientTransformation:
    """The optimizer of an `OptimizerConfig`. Raises UserError naming the key that does not fit."""
    for key, choices in (("name", OPTIMIZERS), ("moments", MOMENTS)):
        if config[key] not in choices:
            expected = ", ".join(choices)
            raise UserError(f"optimizer.{key}={config[key]}: expected one of {expected}")
    if config["name"] == "soap" and config["moments"] != "float32":
        raise UserError("optimizer.moments=bfloat16: soap's bases need float32")
    tx = OPTIMIZERS[config["name"]](config, _schedule(config, iterations))
    if config["moments"] == "bfloat16":
        tx = kept_in_bfloat16(tx)
    limit = config["clip_norm"]
    clip = optax.identity() if limit is None else optax.clip_by_global_norm(limit)
    return _promoting(optax.chain(clip, tx))


def make_thin(config: Mapping[str, Any]) -> Thin | None:
    """Learning-rate dropout as an `OptimizerConfig` asks for it, None without.

    Each value of an update is kept with the probability `dropout`, else it is 0. Source: Lin et
    al., "Learning-rate dropout", IEEE TNNLS 34(11), 2022. With `dropout_period` all of them are
    multiplied by a cosine that goes from 1 to 0 and back in so many iterations.

    It has no state, so that it can be switched on and off in the middle of a run.
    """
    share, period = config["dropout"], config["dropout_period"]
    if share is None:
        return None

    def thin(key: jax.Array, step: jax.Array, updates: optax.Updates) -> optax.Updates:
        factor = jnp.float32(1)
        if period is not None:
            factor = (jnp.cos(2 * jnp.pi / period * (step % period).astype(jnp.float32)) + 1) / 2
        leaves, tree = jax.tree.flatten(updates)
        kept = [
            jax.random.bernoulli(jax.random.fold_in(key, DROPOUT_DRAWS + i), share, x.shape)
            for i, x in enumerate(leaves)
        ]
        return tree.unflatten(
            [jnp.where(keep, factor * x, 0) for keep, x in zip(kept, leaves, strict=True)]
        )

    return thin


def _off_half(b1: float) -> float:
    """`b1`, but the float32 below 0.5 for 0.5 itself.

    With b1 = 1 - b1 XLA takes the factor out of the running mean; then, on a CPU, it computes that
    mean twice over, and keeps a copy of the old ones meanwhile: 0.2 of DF's 3.0 GB.
    """
    return float(np.nextafter(np.float32(b1), np.float32(0))) if b1 == 0.5 else b1


def _promoting(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx` under JAX's usual promotion of types: optax raises floats to integer powers."""

    def update(*args: Any) -> tuple[optax.Updates, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(*args)

    return optax.GradientTransformation(tx.init, update)


def gradient_norms(state: TrainState) -> dict[str, jax.Array]:
    """By network the norm of the gradient's running mean, which its optimizer keeps anyway.

    It is that of all parameters together, after clipping. A norm in each step would read all
    gradients once more, a few per cent of a small batch's time. Networks whose optimizer keeps no
    mean (rmsprop, adafactor) are left out. Nothing is waited for.
    """
    device = jax.local_devices()[0]
    means = {name: list(_means(net.opt)) for name, net in state.nets.items()}
    return {name: _norm(jax.device_put(found, device)) for name, found in means.items() if found}


@jax.jit
def _norm(tree: Any) -> jax.Array:
    squares = (jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(tree))
    return jnp.sqrt(sum(squares))


def _means(state: Any) -> Iterator[optax.Updates]:
    """The means of gradients that are in the state of an optimizer, whatever it is wrapped in."""
    fields = getattr(state, "_fields", ())
    if own := MEANS.intersection(fields):
        yield from (getattr(state, name) for name in own)
    elif isinstance(state, tuple | list):
        for part in state:
            yield from _means(part)
    elif isinstance(state, dict):
        yield from _means(list(state.values()))


def learning_rate(config: Mapping[str, Any], iterations: int, step: int) -> float:
    """The rate with which iteration `step` (from 1) was made, by an `OptimizerConfig`.

    Without learning-rate dropout; computed on the host's CPU.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return float(_schedule(config, iterations)(step - 1))


def _schedule(config: Mapping[str, Any], iterations: int) -> optax.Schedule:
    rate, warmup = config["learning_rate"], config["warmup"]
    if config["schedule"] == "constant":
        return optax.join_schedules(
            [optax.linear_schedule(0.0, rate, max(1, warmup)), optax.constant_schedule(rate)],
            [warmup],
        )
    if config["schedule"] != "cosine":
        raise UserError(f"optimizer.schedule={config['schedule']}: expected constant or cosine")
    if iterations <= warmup:
        raise UserError(
            f"optimizer.schedule=cosine ends at the target iteration: expected iterations above "
            f"optimizer.warmup={warmup}, found iterations={iterations}"
        )
    return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, iterations)


class Bfloat16State(NamedTuple):
    """The state of another optimizer, its float32 arrays as bfloat16."""

    count: jax.Array
    inner: optax.OptState


def kept_in_bfloat16(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer `tx`, computing in float32, with the arrays of its state kept in bfloat16.

    An update changes Adam's second moment by a thousandth, which rounding to bfloat16's 8 bits
    would lose. So each value is rounded up as often as its remainder says: its mean stays right.
    """

    def init(params: optax.Params) -> Bfloat16State:
        return Bfloat16State(jnp.int32(0), jax.tree.map(_to_bfloat16, tx.init(params)))

    def update(updates, state, params=None):
        inner = jax.tree.map(_to_float32, state.inner)
        updates, inner = tx.update(updates, inner, params)
        key = jax.random.fold_in(jax.random.key(0), state.count)
        # One number for all: a value meets another one at each update, and that is what counts.
        threshold = jax.random.bits(key, (), jnp.uint16)
        inner = jax.tree.map(lambda x: _to_bfloat16(x, threshold), inner)
        return updates, Bfloat16State(state.count + 1, inner)

    return optax.GradientTransformation(init, update)


def _to_bfloat16(x: jax.Array, threshold: jax.Array | None = None) -> jax.Array:
    """A float32 array as bfloat16, rounded by `threshold`; other leaves, such as counts, as is."""
    if x.dtype != jnp.float32 or x.ndim == 0:
        return x
    if threshold is None:
        return x.astype(jnp.bfloat16)
    return round_stochastically(x, threshold)


def _to_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def round_stochastically(x: jax.Array, threshold: jax.Array) -> jax.Array:
    """float32 to bfloat16: away from zero where the dropped bits and `threshold` carry over.

    `threshold` is a uint16; over all of them the mean of the results is `x`. Finite numbers only.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + threshold.astype(jnp.uint32)
    kept = (bits >> DROPPED_BITS).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(kept, jnp.bfloat16)
