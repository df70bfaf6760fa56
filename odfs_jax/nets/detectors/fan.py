"""FAN, a stack of hourglasses that draws a heat map for each of the 68 points. NHWC, float32.

Layers carry the names of face-alignment's weights, so that those load unchanged. Source: Bulat
and Tzimiropoulos, "How far are we from solving the 2D & 3D face alignment problem?", ICCV 2017.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

INPUT = 256  # pixels of a crop, values 0..1
CELL = 4  # crop pixels that one pixel of a heat map stands for
POINTS = 68
FEATURES = 256
DEPTH = 4  # how often an hourglass halves its maps


class Block(nn.Module):
    """Three 3x3 convolutions, their outputs concatenated, plus the input: [N,H,W,C] -> [...,F]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        half, quarter = self.features // 2, self.features // 4
        first = _conv(half, 3, "conv1")(_norm_relu(x, "bn1"))
        second = _conv(quarter, 3, "conv2")(_norm_relu(first, "bn2"))
        third = _conv(quarter, 3, "conv3")(_norm_relu(second, "bn3"))
        if x.shape[-1] != self.features:
            x = _conv(self.features, 1, "downsample_2")(_norm_relu(x, "downsample_0"))
        return jnp.concatenate([first, second, third], axis=-1) + x


class Hourglass(nn.Module):
    """Halves the maps DEPTH times and doubles them again, adding those of the same size."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self._at(DEPTH, x)

    def _at(self, level: int, x: jax.Array) -> jax.Array:
        kept = Block(FEATURES, name=f"b1_{level}")(x)
        low = Block(FEATURES, name=f"b2_{level}")(_halve(x))
        if level > 1:
            low = self._at(level - 1, low)
        else:
            low = Block(FEATURES, name=f"b2_plus_{level}")(low)
        low = Block(FEATURES, name=f"b3_{level}")(low)
        return kept + low.repeat(2, axis=1).repeat(2, axis=2)


class FanNet(nn.Module):
    """[N,H,W,3] in 0..1 -> heat maps [N,H/4,W/4,68] of the last hourglass; H, W multiples of 64."""

    stacks: int = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _conv(64, 7, "conv1", stride=2, bias=True)(x)
        x = _halve(Block(128, name="conv2")(_norm_relu(x, "bn1")))
        x = Block(FEATURES, name="conv4")(Block(128, name="conv3")(x))
        for i in range(self.stacks):
            y = Block(FEATURES, name=f"top_m_{i}")(Hourglass(name=f"m{i}")(x))
            y = _norm_relu(_conv(FEATURES, 1, f"conv_last{i}", bias=True)(y), f"bn_end{i}")
            maps = _conv(POINTS, 1, f"l{i}", bias=True)(y)
            if i + 1 < self.stacks:
                x = x + _conv(FEATURES, 1, f"bl{i}", bias=True)(y)
                x = x + _conv(FEATURES, 1, f"al{i}", bias=True)(maps)
        return maps


def peaks(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(peaks of heat maps [N,h,w,K] as (x, y) in map pixels [N,K,2], their heights [N,K]).

    Interpolated by the parabola through the logarithms of the highest pixel and its neighbors. That
    is exact for a Gaussian, which the network was trained to draw.
    """
    n, height, width, count = maps.shape
    flat = maps.reshape(n, height * width, count)
    best = flat.argmax(axis=1)
    row, column = best // width, best % width

    def value(dy: int, dx: int) -> jax.Array:
        y, x = jnp.clip(row + dy, 0, height - 1), jnp.clip(column + dx, 0, width - 1)
        return jnp.take_along_axis(flat, (y * width + x)[:, None], axis=1)[:, 0]

    def offset(low: jax.Array, peak: jax.Array, high: jax.Array) -> jax.Array:
        low, peak, high = (jnp.log(jnp.maximum(v, 1e-6)) for v in (low, peak, high))
        curve = 2 * peak - low - high
        return jnp.where(curve > 1e-6, (high - low) / (2 * jnp.maximum(curve, 1e-6)), 0)

    peak = value(0, 0)
    shift = jnp.stack(
        [offset(value(0, -1), peak, value(0, 1)), offset(value(-1, 0), peak, value(1, 0))], -1
    )
    whole = jnp.stack([column, row], axis=-1).astype(jnp.float32)
    return whole + jnp.clip(shift, -0.5, 0.5), peak


def _conv(features: int, size: int, name: str, stride: int = 1, bias: bool = False) -> nn.Conv:
    pad = size // 2
    return nn.Conv(
        features, (size, size), stride, ((pad, pad), (pad, pad)),
        use_bias=bias, precision="highest", name=name,
    )  # fmt: skip


def _norm_relu(x: jax.Array, name: str) -> jax.Array:
    return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=name)(x))


def _halve(x: jax.Array) -> jax.Array:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
