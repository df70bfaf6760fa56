"""Objects drawn before faces, on the device: with them a mask network learns without any labels.

Where an object lies is known to the pixel, whatever the face. All objects are made of capsules, so
that one program draws them all: a finger is one, a hand twelve, a pair of glasses two hollow ones
and four thin ones, the edge of a cloth one that is larger than the picture. A wave bends them. They
are painted in skin, in plain colors, or with pieces of other pictures and of the same one; they are
lit from one side, cast a soft shadow, and are blurred as they move.

Places and sizes are shares of the picture's side, (x, y) from its top left corner. Pictures are
float32 RGB in [0, 1]. Keys come first.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.align import INNER, MEAN_FACE
from odfs_jax.faces.landmarks68 import EYES
from odfs_jax.faces.spec import FaceSpec

PARTS = 12  # capsules of an object
NOWHERE = -9.0  # where the capsules are that an object does not need
SECOND = 0.35  # probability that another object lies before the first one
COMMON = {"hand": 3.0, "finger": 3.0}  # how often an object is drawn, against 1 for the others
SKIN = {"finger": 0.8, "hand": 0.8}  # probability that it has a color of skin
OWN = 0.6  # probability that it is this face's skin, not another person's
SKINS = np.array([[0.98, 0.82, 0.72], [0.25, 0.15, 0.1]], np.float32)  # the lightest, the darkest
PICTURE = 0.35  # probability that an object is a piece of a picture
NUMBERS = 96  # random numbers that an object is made of


class Numbers:
    """Random numbers, drawn at once: a program of a draw for each takes minutes to compile."""

    def __init__(self, key: jax.Array, count: int = NUMBERS) -> None:
        self._drawn, self._used = jax.random.uniform(key, (count,)), 0

    def __call__(
        self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()
    ) -> jax.Array:
        """The next ones, uniform between `low` and `high`, of `shape`."""
        first, self._used = self._used, self._used + math.prod(shape)
        if self._used > len(self._drawn):
            raise ValueError(f"more than {len(self._drawn)} random numbers are used")
        return low + (high - low) * self._drawn[first : self._used].reshape(shape)

    def whether(self, probability: float | jax.Array) -> jax.Array:
        """True with a `probability`."""
        return self() < probability

    def copy(self) -> "Numbers":
        """These numbers from here on, for one of several uses of which one counts."""
        other = object.__new__(Numbers)
        other._drawn, other._used = self._drawn, self._used
        return other


class Capsules(NamedTuple):
    """The parts of an object: all that is nearer to a line than its radius."""

    start: jax.Array  # [PARTS, 2]
    end: jax.Array  # [PARTS, 2]
    radius: jax.Array  # [PARTS, 2], at the start and at the end
    shell: jax.Array  # [PARTS], half the thickness of a hollow one; 0: solid


class Shape(NamedTuple):
    """An object as it covers a picture, each [R, R]."""

    distance: jax.Array  # to its outline, below 0 inside
    right: jax.Array  # the surface's normal: towards the right,
    down: jax.Array  # downwards,
    front: jax.Array  # and towards the camera


def lay_over(
    key: jax.Array,
    face: jax.Array,
    mask: jax.Array,
    other: jax.Array,
    spec: FaceSpec,
    probability: float,
) -> tuple[jax.Array, jax.Array]:
    """(`face` [R, R, 3] with objects before it, `mask` [R, R, 1] without what they hide).

    One object with the `probability`, now and then a second one. `other` [R, R, 3] is another
    picture that pieces may be of; `spec` tells where in `face` its eyes are. The noise and the
    slight blur of a camera are over all, objects or not.
    """
    key_first, key_second, key_film = jax.random.split(key, 3)

    def one(
        before: tuple[jax.Array, jax.Array], drawn: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        (shown, seen), (key, share) = before, drawn
        numbers = Numbers(key)
        there = numbers.whether(share)
        covered, opacity = _with_object(numbers, shown, face, mask, other, spec)
        return (
            jnp.where(there, covered, shown),
            jnp.where(there, seen * (1 - opacity), seen),
        ), None

    drawn = jnp.stack([key_first, key_second]), probability * jnp.array([1.0, SECOND])
    (shown, seen), _ = jax.lax.scan(one, (face, mask), drawn)
    return _filmed(key_film, shown), seen


def _with_object(
    numbers: Numbers,
    shown: jax.Array,
    face: jax.Array,
    mask: jax.Array,
    other: jax.Array,
    spec: FaceSpec,
) -> tuple[jax.Array, jax.Array]:
    """(`shown` [R, R, 3] with an object before it, its opacity [R, R, 1])."""
    shares = np.array([COMMON.get(name, 1.0) for name in KINDS])
    kind = (numbers() > (shares.cumsum() / shares.sum())[:-1]).sum()
    size = face.shape[0]
    places = _wavy(numbers, size)

    # ---- Its color, in the light ----

    visible = mask.sum()
    own = (face * mask).sum((0, 1)) / jnp.maximum(visible, 1.0)
    tone = numbers()
    skin = jnp.where(numbers.whether(OWN), own, SKINS[0] + tone * (SKINS[1] - SKINS[0]))
    skin = jnp.clip(skin * jnp.exp(numbers(-0.4, 0.4) + numbers(-0.15, 0.15, (3,))), 0, 1)
    plain = numbers(shape=(3,)) ** numbers(0.5, 3.0)
    of_skin = jnp.array([SKIN.get(name, 0.1) for name in KINDS])[kind]
    color = jnp.where(numbers.whether(of_skin), skin, plain)[None, None, :]
    picture = _moved(numbers, jnp.where(numbers.whether(0.5), face, other))
    grain = (picture.mean(-1, keepdims=True) - 0.5) * numbers(0.0, 0.4)
    color = jnp.where(numbers.whether(PICTURE), picture, color * (1 + grain))

    angle, slope = numbers(0.0, 2 * jnp.pi), numbers(0.0, 1.2)
    depth = numbers(0.0, 0.8)  # how much the light matters
    bright = numbers(0.6, 1.3)

    # ---- Its edge, blurred by focus and motion; its shadow ----

    soft = numbers(0.8, 2.5) / size
    going, far = numbers(0.0, 2 * jnp.pi), jnp.maximum(numbers(-6.0, 6.0), 0) / size
    offset = (numbers(-1.0, 1.0, (2,)) * size / 12).astype(jnp.int32)
    dark, spread = numbers(0.0, 0.6), numbers(0.0, 0.06)

    # ---- Where it is; it takes the numbers that are left ----

    made = [draw(numbers.copy(), spec) for draw in KINDS.values()]
    shape = cover(jax.tree.map(lambda *options: jnp.stack(options)[kind], *made), places)
    towards = jnp.sin(slope) * (jnp.cos(angle) * shape.right + jnp.sin(angle) * shape.down)
    lit = 1 - depth + depth * jnp.maximum(towards + jnp.cos(slope) * shape.front, 0)
    color = jnp.clip(color * (bright * lit)[..., None], 0, 1)
    along = jnp.abs(jnp.cos(going) * shape.right + jnp.sin(going) * shape.down)
    opacity = jnp.clip(0.5 - shape.distance / (soft + far * along), 0, 1)[..., None]
    near = jnp.roll(shape.distance, offset, (0, 1))
    shadow = dark * jax.nn.sigmoid(-near / (0.005 + spread))[..., None]
    return shown * (1 - shadow) * (1 - opacity) + color * opacity, opacity


def cover(parts: Capsules, places: tuple[jax.Array, jax.Array]) -> Shape:
    """What an object covers at `places`, (x, y) [R, R] each.

    A surface is round where it is solid; its normal is that of the part that reaches out furthest.
    """
    x, y = places

    def add(shape: Shape, part: Capsules) -> tuple[Shape, None]:
        (ax, ay), (bx, by) = part.start, part.end
        dx, dy = bx - ax, by - ay
        length = jnp.maximum(dx * dx + dy * dy, 1e-9)
        along = jnp.clip(((x - ax) * dx + (y - ay) * dy) / length, 0, 1)
        right, down = x - ax - along * dx, y - ay - along * dy
        away = jnp.sqrt(right * right + down * down + 1e-12)
        radius = part.radius[0] + along * (part.radius[1] - part.radius[0])
        distance = away - radius
        distance = jnp.where(part.shell > 0, jnp.abs(distance) - part.shell, distance)
        tilt = jnp.clip(away / jnp.maximum(radius, 1e-4), 0, 1)
        front = jnp.sqrt(jnp.maximum(1 - tilt * tilt, 0.0))
        new = Shape(distance, right / away * tilt, down / away * tilt, front)
        nearer = distance < shape.distance
        return jax.tree.map(lambda a, b: jnp.where(nearer, a, b), new, shape), None

    # A loop: written out, XLA:CPU computes each part again for all that come after it.
    none = Shape(jnp.full_like(x, 9.0), jnp.zeros_like(x), jnp.zeros_like(x), jnp.ones_like(x))
    return jax.lax.scan(add, none, parts)[0]


def _wavy(numbers: Numbers, size: int) -> tuple[jax.Array, jax.Array]:
    """(x, y) [size, size] of a picture's pixels, moved by a random wave: straight lines bend."""
    line = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    x, y = jnp.meshgrid(line, line)
    angle, phase = numbers(0.0, 2 * jnp.pi), numbers(0.0, 2 * jnp.pi)
    waves = numbers(3.0, 30.0)
    high = jnp.maximum(numbers(-0.5, 1.0), 0) * 0.8 / waves
    shift = high * jnp.sin(waves * (jnp.cos(angle) * x + jnp.sin(angle) * y) + phase)
    return x - jnp.sin(angle) * shift, y + jnp.cos(angle) * shift


def _moved(numbers: Numbers, picture: jax.Array) -> jax.Array:
    """`picture` [R, R, 3] mirrored or not, upside down or not, with its middle elsewhere."""
    picture = jnp.where(numbers.whether(0.5), picture[::-1], picture)
    picture = jnp.where(numbers.whether(0.5), picture[:, ::-1], picture)
    places = (numbers(shape=(2,)) * len(picture)).astype(jnp.int32)
    return jnp.roll(picture, places, (0, 1))


def _filmed(key: jax.Array, picture: jax.Array) -> jax.Array:
    """`picture` [R, R, 3] a little out of focus, as often as not, and with noise."""
    key_numbers, key_noise = jax.random.split(key)
    numbers = Numbers(key_numbers, 2)
    share = jnp.maximum(numbers(-1.0, 1.0), 0)
    blurred = picture
    for axis in (0, 1):
        edges = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        wide = jnp.pad(blurred, edges, mode="edge")
        count = picture.shape[axis]
        blurred = sum(jax.lax.slice_in_dim(wide, i, i + count, 1, axis) for i in range(3)) / 3
    picture = picture + share * (blurred - picture)
    strength = 0.04 * numbers() ** 2
    return jnp.clip(picture + strength * jax.random.normal(key_noise, picture.shape), 0, 1)


# ---- The objects: draw(numbers, spec) -> Capsules ----


def _capsules(
    start: jax.Array, end: jax.Array, radius: jax.Array, shell: jax.Array | None = None
) -> Capsules:
    """An object of so many parts as `start` [n, 2] has; the others are nowhere."""
    rest = PARTS - len(start)
    nowhere = jnp.full((rest, 2), NOWHERE)
    radius = jnp.stack([radius, radius], -1) if radius.ndim == 1 else radius
    shell = jnp.zeros(len(start)) if shell is None else shell
    return Capsules(
        jnp.concatenate([start, nowhere]),
        jnp.concatenate([end, nowhere]),
        jnp.concatenate([radius, jnp.zeros((rest, 2))]),
        jnp.concatenate([shell, jnp.zeros(rest)]),
    )


def _direction(angle: jax.Array) -> jax.Array:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)


def _somewhere(numbers: Numbers) -> tuple[jax.Array, jax.Array]:
    """(a place on a face, [2], an angle)."""
    return numbers(0.2, 0.85, (2,)), numbers(0.0, 2 * jnp.pi)


def _hand(numbers: Numbers, spec: FaceSpec) -> Capsules:
    """A forearm, a palm, a thumb and four fingers of two bones, from anywhere outside."""
    tip, angle = _somewhere(numbers)
    scale = numbers(0.6, 1.4)
    ahead, aside = _direction(angle), _direction(angle + jnp.pi / 2)
    finger = 0.032 * scale
    spread = numbers(-0.1, 0.5)  # how far fingers are apart
    bend, long = numbers(-0.5, 0.5, (4,)), numbers(0.07, 0.14, (4,)) * scale
    place = jnp.arange(4.0) - 1.5
    palm = tip - ahead * 0.22 * scale
    roots = (palm + ahead * 0.03 * scale)[None] + (place * 1.9 * finger)[:, None] * aside[None]
    knuckles = roots + long[:, None] * _direction(angle + place * spread)
    tips = knuckles + 0.9 * long[:, None] * _direction(angle + place * spread + bend)
    wrist, heel = tip - ahead * 0.45 * scale, palm - ahead * 0.1 * scale
    thumb = palm - ahead * 0.06 * scale + aside * 3.2 * finger
    thumb_tip = thumb + 0.12 * scale * _direction(angle + 0.4 + spread)
    start = jnp.concatenate([jnp.stack([wrist, heel, thumb]), roots, knuckles])
    end = jnp.concatenate([jnp.stack([wrist - ahead * 2, palm, thumb_tip]), knuckles, tips])
    arm = numbers(0.07, 0.12) * scale
    width = jnp.stack([arm, 3.4 * finger, 1.1 * finger])
    return _capsules(start, end, jnp.concatenate([width, jnp.ones(8) * finger]))


def _finger(numbers: Numbers, spec: FaceSpec) -> Capsules:
    """One to four fingers side by side, which end on the face."""
    tip, angle = _somewhere(numbers)
    ahead, aside = _direction(angle), _direction(angle + jnp.pi / 2)
    radius, count, back = numbers(0.02, 0.06), numbers(0.5, 4.5), numbers(0.0, 0.1, (4,))
    thin, fan = numbers(0.75, 1.0), numbers(-0.05, 0.2)
    place = jnp.arange(4.0)
    tips = tip[None] + (place * 2 * radius)[:, None] * aside[None] - back[:, None] * ahead[None]
    tips = jnp.where((place < count)[:, None], tips, NOWHERE)
    roots = tips - 1.5 * _direction(angle - place * fan)
    width = radius * jnp.stack([thin, jnp.ones(())])
    return _capsules(tips, roots, jnp.tile(width, (4, 1)))


def _bar(numbers: Numbers, spec: FaceSpec) -> Capsules:
    """A stick, a cable or a beam across, at times with a thick end: a microphone."""
    place, angle = _somewhere(numbers)
    radius = 0.01 * 10 ** numbers()
    ends = numbers.whether(0.6)  # on the face
    far, thick = _direction(angle) * 2, radius * numbers(1.0, 3.5)
    start = jnp.stack([jnp.where(ends, place, place + far), jnp.where(ends, place, NOWHERE)])
    end = jnp.stack([place - far, start[1] - _direction(angle) * thick])
    return _capsules(start, end, jnp.stack([radius, thick]))


def _ball(numbers: Numbers, spec: FaceSpec) -> Capsules:
    """One to three balls, a fruit or a cup say; together they may be any lump."""
    place, _ = _somewhere(numbers)
    places = place[None] + numbers(-0.25, 0.25, (3, 2))
    radius = numbers(-0.1, 0.22, (3,))
    places = jnp.where(radius[:, None] > 0.02, places, NOWHERE)
    return _capsules(places, places, jnp.maximum(radius, 0))


def _cloth(numbers: Numbers, spec: FaceSpec) -> Capsules:
    """All on one side of an edge: a scarf, a sleeve, a table, somebody's back."""
    angle = numbers(0.0, 2 * jnp.pi)
    reach, radius = numbers(0.0, 0.45), numbers(0.5, 3.0)  # of the edge to the middle
    middle = jnp.array([0.5, 0.5]) + _direction(angle) * (reach + radius)
    return _capsules(middle[None], middle[None], radius[None])


def _hair(numbers: Numbers, spec: FaceSpec) -> Capsules:
    """Strands that hang from one place, thin at their ends."""
    root = jnp.stack([numbers(), numbers(-0.2, 0.3)])
    roots = root[None] + jnp.array([[0.35, 0.1]]) * numbers(-1.0, 1.0, (PARTS, 2))
    angle = jnp.pi / 2 + numbers(-0.8, 0.8) + numbers(-0.4, 0.4, (PARTS,))
    long, thick = numbers(0.3, 0.9), numbers(0.004, 0.02, (PARTS,))
    tips = roots + long * _direction(angle)
    return _capsules(roots, tips, jnp.stack([thick, 0.3 * thick], -1))


def _glasses(numbers: Numbers, spec: FaceSpec) -> Capsules:
    """The frame of glasses where the eyes are: rims, a bridge, temples. Lenses are clear."""
    inner = MEAN_FACE[EYES.start - INNER.start : EYES.stop - INNER.start].reshape(2, 6, 2).mean(1)
    corner = np.array([spec.margin, spec.margin + spec.shift])
    eyes = ((inner * spec.face_side + corner) / spec.resolution).astype(np.float32)
    left, right = eyes + numbers(-0.04, 0.04, (1, 2))
    wide, radius, rim = numbers(0.0, 0.05), numbers(0.06, 0.1), numbers(0.003, 0.012)
    aside, edge = jnp.stack([wide, 0.0 * wide]), jnp.stack([wide + radius, 0.0 * wide])
    far = jnp.array([0.5, 0.0])
    start = jnp.stack([left - aside, right - aside, left + edge, left - edge, right + edge])
    end = jnp.stack([left + aside, right + aside, right - edge, left - far, right + far])
    width = jnp.stack([radius, radius, rim, rim, rim])
    return _capsules(start, end, width, rim * jnp.array([1.0, 1.0, 0.0, 0.0, 0.0]))


KINDS: dict[str, Callable[[Numbers, FaceSpec], Capsules]] = {
    "hand": _hand,
    "finger": _finger,
    "bar": _bar,
    "ball": _ball,
    "cloth": _cloth,
    "hair": _hair,
    "glasses": _glasses,
}
