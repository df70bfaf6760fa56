"""Color transfers by name: what `merge.color` and `augment.color_transfer` do to a face.

A transfer first measures a pair of faces and then applies the statistics to pixels. The two are
separate because colors worked out frame by frame flicker with the mask and the network's noise: all
faces of a clip are measured first, and the statistics are averaged along each face's track.

rct: mean and standard deviation of each axis of the l-alpha-beta space (Reinhard et al., below).
lct: mean and covariance, by the square roots of both, T = St^(1/2) Ss^(-1/2); the "principal axes"
transfer in Pitie and Kokaram, "The linear Monge-Kantorovitch linear colour mapping", CVMP 2007.
mkl: mean and covariance with the least movement of colors, the closed form of the same paper:
T = Ss^(-1/2) (Ss^(1/2) St Ss^(1/2))^(1/2) Ss^(-1/2).
hist: histogram matching, channel by channel.
idt: the whole distribution, moved by the curves of three perpendicular directions of RGB space at a
time, in other directions each round (Pitie, Kokaram, Dahyot, "Automated colour grading using colour
distribution transfer", CVIU 107, 2007). Along a direction both distributions are one-dimensional,
and the transport between them is a monotone curve.
sot: the same by the mean of many directions, a gradient step on the sliced Wasserstein distance
(Bonneel, Rabin, Peyre, Pfister, JMIV 51, 2015). The directions of both are fixed, so that every
frame is treated the same way.
light: dst's light on the new face, the new face times the quotient of both blurred faces. Light
changes slowly over a face, features change fast: the quotient image of Riklin-Raviv and Shashua,
CVPR 1999, with a gaussian for the slow part. It takes src's shadows away and adds dst's.
tone: the same, measured on skin only, with more of the new face's own contrast where the two skins
differ in brightness, without shadows that dst's face has not, and with dst's shade on smooth skin.

Faces and targets are float32 [N, R, R, 3] in [0, 1]; `where` is bool [N, R, R, 1], True for the
pixels that are counted; pictures are float32 [N, h, w, 3].

A new transfer is a pair of functions here and a row in `TRANSFERS`, at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.spec import to_gray
from odfs_jax.faces.warp import largest


class ColorStats(NamedTuple):
    """What a transfer measured of N pairs of faces."""

    values: Any  # a pytree of float32 [N, ...] whose mean over frames is itself a measurement
    counted: jax.Array  # float32 [N]: 1 where there was a pixel to count, else 0


@dataclass(frozen=True)
class Transfer:
    """A color transfer: two pure functions on batches of RGB pictures, float32 in [0, 1].

    `values_of` takes (faces, targets [N, R, R, 3], where bool [N, R, R, 1]) and returns the values
    of a `ColorStats`, from the pixels where `where` is True. `move` takes (pictures [N, h, w, 3] of
    any size, values) and returns the pictures with all pixels moved, clipped to [0, 1].
    """

    values_of: Callable[[jax.Array, jax.Array, jax.Array], Any]
    move: Callable[[jax.Array, Any], jax.Array]

    @partial(jax.jit, static_argnums=0)
    def measure(self, faces: jax.Array, targets: jax.Array, where: jax.Array) -> ColorStats:
        """What `faces` need to get the colors of `targets`, both [N, R, R, 3].

        Counts the pixels for which `where`, bool [N, R, R, 1], is True.
        """
        counted = where.any(axis=(1, 2, 3)).astype(jnp.float32)
        return ColorStats(self.values_of(faces, targets, where), counted)

    @partial(jax.jit, static_argnums=0)
    def apply(self, pictures: jax.Array, stats: ColorStats) -> jax.Array:
        """`pictures` [N, h, w, 3] in the measured colors; unchanged where nothing was counted."""
        moved = self.move(pictures, stats.values)
        return jnp.where(stats.counted[:, None, None, None] > 0, moved, pictures)


# ---- One matrix and one shift: rct, lct, mkl

# Reinhard, Ashikhmin, Gooch, Shirley, "Color transfer between images", IEEE CG&A 21(5), 2001:
# equations 4 and 6 of linear light to cone responses and of their logarithms to opponent colors.
CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
OPPONENT = np.diag(1 / np.sqrt([3, 6, 2])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
DARKEST = 1 / 255  # of a cone response: the logarithm needs a floor
LEAST_SPREAD = 1e-4  # of opponent colors: one that does not vary is not stretched without end
LEAST_VARIANCE = (1 / 255) ** 2 / 12  # added to RGB's: that of rounding to 8 bits


class Moments(NamedTuple):
    """The means [N, 3] and the covariances [N, 3, 3] of the new face and of dst's."""

    mean: jax.Array
    covariance: jax.Array
    wanted_mean: jax.Array
    wanted_covariance: jax.Array


def measure_moments(faces: jax.Array, targets: jax.Array, where: jax.Array) -> Moments:
    """The moments of `faces` and `targets`, in RGB."""
    return Moments(*_mean_and_covariance(faces, where), *_mean_and_covariance(targets, where))


def measure_opponent_moments(faces: jax.Array, targets: jax.Array, where: jax.Array) -> Moments:
    """The moments of `faces` and `targets`, in l-alpha-beta."""
    return measure_moments(_to_opponent(faces), _to_opponent(targets), where)


def apply_rct(pictures: jax.Array, moments: Moments) -> jax.Array:
    """`pictures` with the mean and spread of the targets in l-alpha-beta, clipped to [0, 1]."""
    spread, wanted = (
        jnp.sqrt(jnp.diagonal(c, axis1=1, axis2=2))
        for c in (moments.covariance, moments.wanted_covariance)
    )
    scale = wanted / jnp.maximum(spread, LEAST_SPREAD)
    matrices = scale[:, :, None] * jnp.eye(3)[None]
    return jnp.clip(
        _from_opponent(_move_linearly(_to_opponent(pictures), moments, matrices)), 0.0, 1.0
    )


def apply_lct(pictures: jax.Array, moments: Moments) -> jax.Array:
    """`pictures` with the mean and covariance of the targets, by square roots, in [0, 1]."""
    _, inverse_root = _roots(_with_floor(moments.covariance))
    root, _ = _roots(_with_floor(moments.wanted_covariance))
    matrices = jnp.matmul(root, inverse_root, precision="highest")
    return jnp.clip(_move_linearly(pictures, moments, matrices), 0.0, 1.0)


def apply_mkl(pictures: jax.Array, moments: Moments) -> jax.Array:
    """`pictures` with the mean and covariance of the targets, least moved, in [0, 1]."""
    root, inverse_root = _roots(_with_floor(moments.covariance))
    inner = _sandwiched(root, _with_floor(moments.wanted_covariance))
    matrices = _sandwiched(inverse_root, _roots(inner)[0])
    return jnp.clip(_move_linearly(pictures, moments, matrices), 0.0, 1.0)


def _mean_and_covariance(values: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [N, 3] and covariance [N, 3, 3] of the counted pixels of `values` [N, R, R, 3]."""
    weights = where.astype(jnp.float32)
    count = jnp.maximum(weights.sum(axis=(1, 2)), 1.0)
    mean = (values * weights).sum(axis=(1, 2)) / count
    away = (values - mean[:, None, None, :]) * weights
    squares = jnp.einsum("nyxc,nyxd->ncd", away, away, precision="highest")
    return mean, squares / count[..., None]


def _multiply(matrices: jax.Array, colors: jax.Array) -> jax.Array:
    """Each color of `colors` [N, h, w, 3] times the matrix [N, 3, 3] or [3, 3] of its picture."""
    matrices = jnp.broadcast_to(jnp.asarray(matrices, jnp.float32), (len(colors), 3, 3))
    # A float32 product with TF32 inputs would move colors by a thousandth.
    return jnp.einsum("ndc,nyxc->nyxd", matrices, colors, precision="highest")


def _move_linearly(colors: jax.Array, moments: Moments, matrices: jax.Array) -> jax.Array:
    """`colors` less the new face's mean, times `matrices` [N, 3, 3], plus dst's mean."""
    away = colors - moments.mean[:, None, None, :]
    return _multiply(matrices, away) + moments.wanted_mean[:, None, None, :]


def _with_floor(covariance: jax.Array) -> jax.Array:
    return covariance + LEAST_VARIANCE * jnp.eye(3)[None]


def _roots(covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The symmetric square root of [N, 3, 3], positive definite, and its inverse."""
    values, axes = jnp.linalg.eigh(covariance)
    root = jnp.sqrt(jnp.maximum(values, LEAST_VARIANCE**2))

    def along(scale: jax.Array) -> jax.Array:
        return jnp.einsum("nij,nj,nkj->nik", axes, scale, axes, precision="highest")

    return along(root), along(1 / root)


def _sandwiched(outer: jax.Array, inner: jax.Array) -> jax.Array:
    return jnp.einsum("nij,njk,nkl->nil", outer, inner, outer, precision="highest")


def _to_opponent(rgb: jax.Array) -> jax.Array:
    cones = jnp.maximum(_multiply(CONES, rgb), DARKEST)
    return _multiply(OPPONENT, jnp.log10(cones))


def _from_opponent(opponent: jax.Array) -> jax.Array:
    return _multiply(np.linalg.inv(CONES), 10 ** _multiply(np.linalg.inv(OPPONENT), opponent))


# ---- Histograms: hist

BINS = 256  # 8-bit values


def measure_histograms(faces: jax.Array, targets: jax.Array, where: jax.Array) -> jax.Array:
    """Tables float32 [N, 3, 256] of the value, 0..255, that each 8-bit value becomes.

    They give `faces` the histograms of `targets`, both [N, R, R, 3], counted where `where`, bool
    [N, R, R, 1], is True. On 8-bit values they equal `skimage.exposure.match_histograms`.
    """

    def channel(face: jax.Array, target: jax.Array, count: jax.Array) -> jax.Array:
        source, wanted = _histogram(face, count), _histogram(target, count)
        value = jnp.arange(BINS)
        filled = jnp.where(wanted > 0, value, -1)
        # Empty bins take the value of the last full one: quantiles jump only at full bins.
        values = jnp.maximum(jax.lax.cummax(filled), jnp.argmax(wanted > 0))
        total = jnp.maximum(count.sum(), 1).astype(jnp.float32)
        return jnp.interp(
            jnp.cumsum(source) / total, jnp.cumsum(wanted) / total, values.astype(jnp.float32)
        )

    channels = jax.vmap(channel, in_axes=(-1, -1, None))
    return jax.vmap(channels)(faces, targets, where[..., 0])


def apply_histograms(pictures: jax.Array, tables: jax.Array) -> jax.Array:
    """`pictures` [N, h, w, 3] through `tables` [N, 3, 256].

    Values between two bins are interpolated, so that no bands appear.
    """
    channels = jax.vmap(look_up, in_axes=(0, -1), out_axes=-1)
    return jax.vmap(channels)(tables, pictures * (BINS - 1)) / (BINS - 1)


def look_up(table: jax.Array, values: jax.Array) -> jax.Array:
    """`table` [n] at `values` 0..n - 1: linear between entries, constant beyond the ends."""
    last = table.shape[0] - 1
    values = jnp.clip(values, 0.0, last)
    low = jnp.minimum(jnp.floor(values).astype(jnp.int32), last - 1)
    share = values - low.astype(jnp.float32)
    return table[low] * (1 - share) + table[low + 1] * share


def _histogram(plane: jax.Array, count: jax.Array) -> jax.Array:
    """float32 [256]: the pixels of `plane` [R, R] with each 8-bit value, where `count` is True."""
    bins = jnp.clip(jnp.round(plane * (BINS - 1)), 0, BINS - 1).astype(jnp.int32)
    return jnp.zeros(BINS).at[bins.ravel()].add(count.ravel().astype(jnp.float32))


# ---- Curves along directions of RGB space: idt, sot

CURVE_BINS = 256  # of a curve, over all that RGB in [0, 1] can be along its direction
CURVE_PIXELS = 64  # pixels a side of the face that are counted, at most: a curve needs no more
IDT_ROUNDS = 12
SOT_ROUNDS, SOT_DIRECTIONS = 8, 9  # directions a round: three perpendicular triples
IDT_STEP = SOT_STEP = 3.0  # the mean of n directions moves a color by a third of the way in 3-D
LEAST_SHARE = 1e-6  # of a bin's share: a distribution function must rise to have an inverse


def _rotations(count: int) -> np.ndarray:
    """Rotations float32 [count, 3, 3]: the identity, then random ones from a fixed seed."""
    normal = np.random.default_rng(0).standard_normal((count, 3, 3))
    rotated = np.linalg.qr(normal)[0]
    rotated[0] = np.eye(3)
    return rotated.astype(np.float32)


IDT = _rotations(IDT_ROUNDS)[:, None]  # [rounds, triples, direction, channel]
SOT = _rotations(SOT_ROUNDS * SOT_DIRECTIONS // 3).reshape(SOT_ROUNDS, -1, 3, 3)


def _measure_curves(
    directions: np.ndarray, step: float, faces: jax.Array, targets: jax.Array, where: jax.Array
) -> jax.Array:
    """Curves float32 [N, rounds, directions, 256]: how far each place along a direction moves."""
    stride = -(-faces.shape[1] // CURVE_PIXELS)
    faces, targets, where = (p[:, ::stride, ::stride] for p in (faces, targets, where))
    weights = where.reshape(len(where), -1).astype(jnp.float32)

    def measure_round(colors: jax.Array, axes: jax.Array) -> tuple[jax.Array, jax.Array]:
        source, target = _along(axes, colors), _along(axes, targets)
        curve = jax.vmap(jax.vmap(_curve, in_axes=(0, 0, None)))
        curves = curve(source, target, weights)
        return _move_along(colors, axes, curves, step), curves

    _, curves = jax.lax.scan(measure_round, faces, jnp.asarray(directions))
    return curves.swapaxes(0, 1)


def _apply_curves(
    directions: np.ndarray, step: float, pictures: jax.Array, curves: jax.Array
) -> jax.Array:
    """`pictures` [N, h, w, 3] moved by `curves`, round after round, clipped to [0, 1]."""

    def apply_round(colors: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple:
        return _move_along(colors, *at, step), None

    rounds = (jnp.asarray(directions), curves.swapaxes(0, 1))
    return jnp.clip(jax.lax.scan(apply_round, pictures, rounds)[0], 0.0, 1.0)


def _along(axes: jax.Array, colors: jax.Array) -> jax.Array:
    """[N, directions, pixels]: places 0..255 of `colors` [N, h, w, 3] along `axes` [n, 3]."""
    places = jnp.einsum("dc,nyxc->ndyx", axes, colors, precision="highest")
    low, width = _range_along(axes)
    places = (places - low[None, :, None, None]) / width[None, :, None, None] * (CURVE_BINS - 1)
    return places.reshape(*places.shape[:2], -1)


def _move_along(colors: jax.Array, axes: jax.Array, curves: jax.Array, step: float) -> jax.Array:
    """`colors` moved along each direction by its curve."""
    places = _along(axes, colors)
    moves = jax.vmap(jax.vmap(look_up))(curves, places) * _range_along(axes)[1][None, :, None]
    share = step / len(axes)
    moves = jnp.einsum("ndp,dc->npc", moves, axes, precision="highest") * share
    return colors + moves.reshape(colors.shape)


def _range_along(axes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(lowest place, width) [n] of the unit cube along `axes` [n, 3]."""
    return jnp.minimum(axes, 0).sum(-1), jnp.abs(axes).sum(-1)


def _curve(source: jax.Array, target: jax.Array, weights: jax.Array) -> jax.Array:
    """[256]: from places 0..255 of `source` [pixels] to `target`, as shares of the range."""
    share, target_share = _distribution(source, weights), _distribution(target, weights)
    places = jnp.arange(CURVE_BINS, dtype=jnp.float32)
    moves = jnp.interp(share, target_share, places) - places
    # Beyond the face's own colors the move of the nearest of them holds.
    full = (share > 2 * CURVE_BINS * LEAST_SHARE) & (share < 1 - 2 * CURVE_BINS * LEAST_SHARE)
    first, last = jnp.argmax(full), CURVE_BINS - 1 - jnp.argmax(full[::-1])
    nearest = jnp.clip(jnp.arange(CURVE_BINS), first, last)
    return jnp.where(full.any(), moves[nearest], moves) / (CURVE_BINS - 1)


def _distribution(places: jax.Array, weights: jax.Array) -> jax.Array:
    """[256]: the share of `places` [pixels] up to each whole one; each counts in two bins."""
    places = jnp.clip(places, 0.0, CURVE_BINS - 1)
    low = jnp.minimum(places.astype(jnp.int32), CURVE_BINS - 2)
    above = (places - low.astype(jnp.float32)) * weights
    counts = jnp.zeros(CURVE_BINS).at[low].add(weights - above).at[low + 1].add(above)
    counts = counts / jnp.maximum(weights.sum(), 1.0) + LEAST_SHARE
    sums = jnp.cumsum(counts)
    return (sums - counts / 2) / sums[-1]


def _directions(triples: np.ndarray) -> np.ndarray:
    """float32 [rounds, directions, 3] of `triples` [rounds, triples, 3, 3]."""
    return triples.reshape(len(triples), -1, 3)


measure_idt = partial(_measure_curves, _directions(IDT), IDT_STEP)
apply_idt = partial(_apply_curves, _directions(IDT), IDT_STEP)
measure_sot = partial(_measure_curves, _directions(SOT), SOT_STEP)
apply_sot = partial(_apply_curves, _directions(SOT), SOT_STEP)


# ---- Blurred faces: light, tone

LIGHT_SIGMA = 0.12  # of the face square's side: wider than an eye or a mouth, narrower than a cheek
LIGHT_FLOOR = 0.02  # keeps the quotient of two dark places near 1
DARKEST_SKIN = 0.7  # of a face's mean brightness: what is darker is hair, or an eye, or a mouth
BRIGHT_SKIN = 1.1  # of the same: what is as bright counts fully
DETAIL_POWER = 0.25  # 1: contrast falls with the light, as in `light`; 0: it stays as it is
DARKEST_DETAIL = 0.15  # of the light at a place
SHADOW_REACH = 0.06  # of the side: how near to a dark place of dst's the new face may be as dark
DARKEST_SHADOW = 0.95  # of the darkest place of dst's within that reach
SHADE_SIGMA = 0.04  # of the side: narrower than the shade on a cheek, wider than a wrinkle
SMOOTH_SKIN = (0.1, 0.3)  # contrast of dst's at a place: all of its shade is taken, none of it


def measure_light(faces: jax.Array, targets: jax.Array, where: jax.Array) -> jax.Array:
    """The quotient [N, R, R, 3] of the blurred `targets` and `faces`, both [N, R, R, 3].

    Only pixels where `where`, bool [N, R, R, 1], is True are blurred; the quotient is 1 where the
    gaussian does not reach any of them.
    """
    weights = where.astype(jnp.float32)
    (own, _), (wanted, total) = _blurred(faces, weights), _blurred(targets, weights)
    return jnp.where(total > 1e-6, (wanted + LIGHT_FLOOR) / (own + LIGHT_FLOOR), 1.0)


def _blurred(
    pictures: jax.Array, weights: jax.Array, sigma: float = LIGHT_SIGMA
) -> tuple[jax.Array, jax.Array]:
    """(`pictures` blurred, each pixel by its weight, how much of them counted [N, R, R, 1])."""
    size = pictures.shape[1]
    place = np.arange(size, dtype=np.float32)
    apart = (place[:, None] - place[None, :]) / (sigma * size)
    window = jnp.asarray(np.exp(-0.5 * apart**2))

    def blur(values: jax.Array) -> jax.Array:
        return jnp.einsum("yh,nhwc,xw->nyxc", window, values, window, precision="highest")

    total = blur(weights)
    return blur(pictures * weights) / jnp.maximum(total, 1e-6), total


class Bands(NamedTuple):
    """What is left of the new face and of dst's when all detail is blurred away, [N, R, R, 3]."""

    own: jax.Array
    target: jax.Array
    darkest: jax.Array  # [N, R, R, 1]: the least brightness of dst's within SHADOW_REACH
    skin: jax.Array  # [N, R, R, 1]: 1 where dst's is neither outside nor hair, an eye or a beard
    shade: jax.Array  # of dst's skin, less blurred
    smooth: jax.Array  # [N, R, R, 1]: 1 where dst's shows smooth skin, 0 at features and outside


def measure_bands(faces: jax.Array, targets: jax.Array, where: jax.Array) -> Bands:
    """The blurred skin of `faces` and `targets`, both [N, R, R, 3].

    Only pixels where `where`, bool [N, R, R, 1], is True count, and of either face the more, the
    brighter they are: a beard or a brow would darken what lies around it, and stubble make it gray.
    Both are gray where the gaussian does not reach any of them.
    """
    bands, weights = [], where.astype(jnp.float32)
    for pictures in (faces, targets):
        luma = to_gray(pictures)
        share = luma / jnp.maximum(mean_inside(luma, weights), LIGHT_FLOOR)
        skin = jnp.clip((share - DARKEST_SKIN) / (BRIGHT_SKIN - DARKEST_SKIN), 0.0, 1.0) * weights
        band, total = _blurred(pictures, skin)
        bands.append(jnp.where(total > 1e-6, band, 0.5))
    # Of dst's alone: what the new face may be as dark as, and the shade of its skin.
    luma, band = to_gray(targets), to_gray(bands[1])
    reach = 2 * round(SHADOW_REACH * targets.shape[1]) + 1
    darkest = -largest(jnp.where(where, -luma, -jnp.inf), reach)
    contrast = jnp.abs(luma - band) / (band + LIGHT_FLOOR)
    low, high = SMOOTH_SKIN
    skin = jnp.where(luma > DARKEST_SKIN * band, weights, 0.0)
    shade, total = _blurred(targets, skin, SHADE_SIGMA)
    smooth = jnp.clip((high - contrast) / (high - low), 0.0, 1.0) * weights
    # Blurred, for stubble would leave its pattern.
    smooth, _ = _blurred(smooth, jnp.ones_like(weights), SHADE_SIGMA / 2)
    return Bands(
        *bands,
        jnp.where(jnp.isfinite(darkest), darkest, 0.0),
        skin,
        shade,
        jnp.where(total > 1e-6, smooth, 0.0),
    )


def brighter_than(share: float, luma: jax.Array, weights: jax.Array) -> jax.Array:
    """Where `luma` exceeds `share` of its mean, to which each pixel counts by its weight.

    All are [N, H, W, 1]; each picture has a mean of its own.
    """
    return luma > share * mean_inside(luma, weights)


def mean_inside(luma: jax.Array, weights: jax.Array) -> jax.Array:
    """The mean [N, 1, 1, 1] of `luma`, to which each pixel counts by its weight, [N, H, W, 1]."""
    total = jnp.maximum(weights.sum(axis=(1, 2), keepdims=True), 1.0)
    return (luma * weights).sum(axis=(1, 2), keepdims=True) / total


def apply_tone(pictures: jax.Array, bands: Bands) -> jax.Array:
    """`pictures` [N, R, R, 3] with the targets' slow colors and a part of their own contrast.

    Colors are those of the quotient. Of the brightness only the slow part takes the whole factor
    f: detail takes f to the power of DETAIL_POWER, for dark skin shows a nose or a lip more
    strongly than f times the light on bright skin would, and eyes are white in any skin.

    A hard shadow of the clip that the new face was learned from has no place in dst's light: the
    new face is dark only where dst's is, at eyes, brows, nostrils, lips and beard, or near that;
    and where dst's shows smooth skin, its shade is the new face's too.
    """
    quotient = (bands.target + LIGHT_FLOOR) / (bands.own + LIGHT_FLOOR)
    lit = pictures * quotient
    wanted = to_gray(bands.target)
    detail = (to_gray(pictures) - to_gray(bands.own)) * to_gray(quotient) ** DETAIL_POWER
    darkest = jnp.maximum(DARKEST_DETAIL * wanted, DARKEST_SHADOW * bands.darkest)
    luma = jnp.maximum(wanted + detail, darkest)
    # A shadow that is lifted has the color of skin, not that of a shadow made bright.
    lifted = (luma - wanted - detail) / jnp.maximum(-detail, LIGHT_FLOOR)
    tint = lit / jnp.maximum(to_gray(lit), LIGHT_FLOOR)
    skin_tint = bands.target / jnp.maximum(wanted, LIGHT_FLOOR)
    tint += jnp.clip(lifted, 0.0, 1.0) * (skin_tint - tint)
    toned = jnp.clip(tint * luma, 0.0, 1.0)
    shade, _ = _blurred(toned, bands.skin, SHADE_SIGMA)
    quotient = (bands.shade + LIGHT_FLOOR) / (shade + LIGHT_FLOOR)
    return jnp.clip(toned * quotient**bands.smooth, 0.0, 1.0)


def apply_light(pictures: jax.Array, quotient: jax.Array) -> jax.Array:
    """`pictures` times `quotient`, both [N, R, R, 3]."""
    return jnp.clip(pictures * quotient, 0.0, 1.0)


TRANSFERS: dict[str, Transfer | None] = {
    "none": None,
    "rct": Transfer(measure_opponent_moments, apply_rct),
    "lct": Transfer(measure_moments, apply_lct),
    "mkl": Transfer(measure_moments, apply_mkl),
    "idt": Transfer(measure_idt, apply_idt),
    "sot": Transfer(measure_sot, apply_sot),
    "hist": Transfer(measure_histograms, apply_histograms),
    "light": Transfer(measure_light, apply_light),
    "tone": Transfer(measure_bands, apply_tone),
}
