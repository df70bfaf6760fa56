"""S3FD, a face detector that reads six feature maps, each for faces of another size. NHWC, float32.

Layers carry the names of face-alignment's weights, so that those load unchanged. Source: Zhang et
al., "S3FD: Single shot scale-invariant face detector", ICCV 2017.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

MEAN = (123.0, 117.0, 104.0)  # of red, green and blue, which the network subtracts
STRIDES = (4, 8, 16, 32, 64, 128)  # frame pixels between neighboring cells of each of the six maps
ANCHOR = 4  # side of a cell's anchor box, in strides
# The "variances": units in which the network gives a box's center and the logarithm of its size.
CENTER_UNIT, SIZE_UNIT = 0.1, 0.2
VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # (features, convolutions) of each block


class L2Norm(nn.Module):
    """Each pixel's features [..., C] normalized to length 1, then scaled by learned weights [C]."""

    initial: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        weight = self.param("weight", nn.initializers.constant(self.initial), x.shape[-1:])
        norm = jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True)) + 1e-10
        return x / norm * weight.reshape((1,) * (x.ndim - 1) + (-1,))


class S3fdNet(nn.Module):
    """Pixels [N,H,W,3] (RGB, 0..255) -> (face logits less background [N,n], locations [N,n,4]).

    n counts the cells of the six maps of `map_sizes`, each row by row; `decode` makes boxes of the
    locations.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        maps = self._features((x - jnp.array(MEAN).reshape(1, 1, 1, 3))[..., ::-1])
        logits, locations = [], []
        for name, y in maps.items():
            if name.startswith(("conv3", "conv4", "conv5")):
                initial = {"conv3_3": 10.0, "conv4_3": 8.0, "conv5_3": 5.0}[name]
                name = f"{name}_norm"
                y = L2Norm(initial, name=name)(y)
            first = name == "conv3_3_norm"
            scores = _conv(4 if first else 2, 3, f"{name}_mbox_conf")(y)
            background = scores[..., :-1].max(axis=-1)  # the finest map has three of them
            logits.append((scores[..., -1] - background).reshape(len(y), -1))
            locations.append(_conv(4, 3, f"{name}_mbox_loc")(y).reshape(len(y), -1, 4))
        return jnp.concatenate(logits, axis=1), jnp.concatenate(locations, axis=1)

    def _features(self, x: jax.Array) -> Mapping[str, jax.Array]:
        """The six maps that faces are read from, by the name of the layer that made each."""
        maps = {}
        for block, (features, count) in enumerate(VGG, 1):
            for i in range(1, count + 1):
                x = nn.relu(_conv(features, 3, f"conv{block}_{i}")(x))
            if block > 2:
                maps[f"conv{block}_{count}"] = x
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(_conv(1024, 3, "fc6", padding=3)(x))
        maps["fc7"] = x = nn.relu(_conv(1024, 1, "fc7")(x))
        x = nn.relu(_conv(256, 1, "conv6_1")(x))
        maps["conv6_2"] = x = nn.relu(_conv(512, 3, "conv6_2", stride=2)(x))
        x = nn.relu(_conv(128, 1, "conv7_1")(x))
        maps["conv7_2"] = nn.relu(_conv(256, 3, "conv7_2", stride=2)(x))
        return maps


def map_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of each of the six maps of a frame of `height` x `width` pixels."""

    def sizes(n: int) -> list[int]:
        fifth = n // 32 + 4  # fc6 is padded by three on each side, two more than its kernel needs
        sixth = -(-fifth // 2)
        return [n // 4, n // 8, n // 16, fifth, sixth, -(-sixth // 2)]

    return list(zip(sizes(height), sizes(width), strict=True))


def decode(locations: jax.Array, height: int, width: int) -> jax.Array:
    """Boxes [N,n,4] (left, top, right, bottom), pixels of a frame of `height` x `width`.

    `locations` [N,n,4] are those that S3fdNet returns: shifts of the center and logarithms of the
    size, against each cell's anchor.
    """
    centers, sizes = [], []
    for (rows, columns), stride in zip(map_sizes(height, width), STRIDES, strict=True):
        y, x = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
        cell = jnp.stack([x.ravel(), y.ravel()], axis=-1).astype(jnp.float32)
        centers.append((cell + 0.5) * stride)
        sizes.append(jnp.full((rows * columns, 1), float(ANCHOR * stride)))
    center, size = jnp.concatenate(centers)[None], jnp.concatenate(sizes)[None]
    middle = center + locations[..., :2] * CENTER_UNIT * size
    half = size * jnp.exp(locations[..., 2:] * SIZE_UNIT) / 2
    return jnp.concatenate([middle - half, middle + half], axis=-1)


def _conv(
    features: int, size: int, name: str, stride: int = 1, padding: int | None = None
) -> nn.Conv:
    pad = size // 2 if padding is None else padding
    return nn.Conv(
        features, (size, size), stride, ((pad, pad), (pad, pad)), precision="highest", name=name
    )
