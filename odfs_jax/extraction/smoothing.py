"""Steadier points over time: faces are followed from frame to frame, and their points smoothed.

Extraction is offline, so a smoother sees both ways. It gets the points of one face in the frames
around a frame, and gives that frame's. It has no state, so a run that goes on where another stopped
gives the same points. Memory is bounded: only the frames that a smoother looks ahead wait, and of
those behind it the points alone are kept.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Optional, Protocol

import numpy as np

from odfs_jax.config import within
from odfs_jax.errors import UserError
from odfs_jax.extraction.boxes import union_overlap
from odfs_jax.extraction.detection import Detection
from odfs_jax.faces import align

GAP = 2  # frames that a face may be missing from, and is still followed
MIN_OVERLAP = 0.3  # of the points' boxes (intersection over union), for one face in two frames
ORDER = 2  # of the polynomials: a face that speeds up or slows down evenly is left as it is
NARROWEST = ORDER  # frames to either side: the narrowest window that smooths at all
# A wider window is taken as long as what it gives lies within so many standard deviations of what
# the narrower ones gave. A blink is told by how far the eyes are open, which is one number and so
# clearer than the points; it is over in five frames, and a lost blink is worse than a little noise.
STEADY, OPENING = 3.0, 1.5
EYES, MOUTH = slice(36, 48), slice(48, 68)
REST = slice(0, 36)
MEDIAN_DEVIATION = 0.6745  # of a normal distribution, in standard deviations


class Smoother(Protocol):
    """`radius`: how many frames to either side it looks at."""

    radius: int

    def __call__(self, times: np.ndarray, points: np.ndarray, index: int) -> np.ndarray:
        """The points [68,2] at times[index], from `points` [n,68,2] at the rising `times` [n].

        All in pixels and frames. n is 1 or more, at most 2 radius + 1; frames may be missing.
        """
        ...


@dataclass(frozen=True)
class Polynomial:
    """Local polynomials of order 2 in windows as wide as the motion allows, up to `frames`.

    The face's place, size and turn are smoothed apart from its shape, and eyes and mouth apart from
    the rest, so that a blink does not make the turn of the head less steady. Source: Savitzky and
    Golay 1964; the windows' widths by the rule of Goldenshluger and Nemirovski, "On spatial
    adaptive estimation of nonparametric regression", Math. Meth. Statist. 6, 1997.
    """

    frames: int = within(NARROWEST, 15)

    @property
    def radius(self) -> int:
        return 2 * self.frames  # the noise is estimated from more frames than are averaged

    def __call__(self, times: np.ndarray, points: np.ndarray, index: int) -> np.ndarray:
        shapes, places = _split_shape_and_place(points)
        time = times - times[index]
        shape = shapes[index].copy()
        for part, signal, limit in (
            (REST, shapes[:, REST], STEADY),
            (EYES, eyes_open(shapes), OPENING),
            (MOUTH, mouth_open(shapes), OPENING),
        ):
            weights = self._weights(time, signal.reshape(len(points), -1), limit)
            shape[part] = np.tensordot(weights, shapes[:, part], 1)
        weights = self._weights(time, places.reshape(len(points), -1), STEADY)
        return _join_shape_and_place(shape, np.tensordot(weights, places, 1))

    def _weights(self, time: np.ndarray, signal: np.ndarray, limit: float) -> np.ndarray:
        """Weights [n] of the frames that give the smoothed value at time 0, from `signal` [n,d]."""
        best = (time == 0).astype(np.float64)
        noise = noise_of(signal)
        narrower = [(best @ signal, 1.0)]
        for width in range(NARROWEST, self.frames + 1):
            inside = np.abs(time) <= width
            if inside.sum() <= ORDER + 1:  # a polynomial through every value smooths nothing
                continue
            weights = np.zeros(len(time))
            weights[inside] = fit_weights(time[inside])
            value = weights @ signal
            for other, variance in narrower:
                if np.mean((value - other) ** 2) > limit**2 * noise**2 * variance:
                    return best
            narrower.append((value, (weights**2).sum()))
            best = weights
        return best


@dataclass(frozen=True)
class OneEuro:
    """The 1 Euro filter, run forwards and backwards; the mean of both does not lag.

    Cut-off frequency in cycles a frame: `min_cutoff` + `beta` times the speed in face sizes a
    frame, which itself is smoothed with `speed_cutoff`. Source: Casiez, Roussel, Vogel, "1 Euro
    filter", CHI 2012.
    """

    min_cutoff: float = within(1e-3, 10)
    beta: float = within(0, 1e3)
    speed_cutoff: float = within(1e-3, 10)
    radius: int = within(1, 30)

    def __call__(self, times: np.ndarray, points: np.ndarray, index: int) -> np.ndarray:
        size = np.ptp(points[index][align.INNER], axis=0).max()
        before = self._run(times[: index + 1], points[: index + 1], size)
        after = self._run(-times[index:][::-1], points[index:][::-1], size)
        return (before + after) / 2

    def _run(self, times: np.ndarray, points: np.ndarray, size: float) -> np.ndarray:
        """The filtered last of `points` [n,68,2]."""
        value, speed = points[0], np.zeros_like(points[0])
        for i in range(1, len(points)):
            step = float(times[i] - times[i - 1])
            latest = (points[i] - value) / (step * size)
            speed = speed + _pass_share(self.speed_cutoff, step) * (latest - speed)
            pace = np.linalg.norm(speed, axis=-1, keepdims=True)
            value = value + _pass_share(self.min_cutoff + self.beta * pace, step) * (
                points[i] - value
            )
        return value


def _split_shape_and_place(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits `points` [n,68,2] into shapes [n,68,2] aligned to the mean face, and places [n,2,2].

    A place is the image of the mean face's center, and of the step from there to its right edge.
    Least squares by complex numbers, which is `align.umeyama` without its decomposition.
    """
    inner, mean = _complex(points[:, align.INNER]), _complex(align.MEAN_FACE)
    middle, target = inner.mean(axis=1, keepdims=True), mean.mean()
    source = inner - middle
    turn = (np.conj(source) * (mean - target)).sum(1) / np.maximum((abs(source) ** 2).sum(1), 1e-9)
    turn = turn[:, None]
    shapes = (_complex(points) - middle) * turn + target
    places = np.concatenate([middle + (0.5 + 0.5j - target) / turn, 0.5 / turn], axis=1)
    return _pairs(shapes), _pairs(places)


def _join_shape_and_place(shape: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The points [68,2] of a `shape` [68,2] at a `place` [2,2]."""
    center, step = _complex(place)
    return _pairs(center + (_complex(shape) - (0.5 + 0.5j)) * 2 * step)


def _complex(pairs: np.ndarray) -> np.ndarray:
    return pairs[..., 0] + 1j * pairs[..., 1]


def _pairs(numbers: np.ndarray) -> np.ndarray:
    return np.stack([numbers.real, numbers.imag], axis=-1)


def noise_of(signal: np.ndarray) -> float:
    """Standard deviation of the noise of `signal` [n,d], frame by frame; 0 with too few frames.

    From third differences, which even motion does not reach, by their median, which a few frames of
    uneven motion do not reach.
    """
    if len(signal) < 4:
        return 0.0
    third = np.diff(signal, 3, axis=0) / math.sqrt(20)  # 1 + 9 + 9 + 1
    return float(np.median(np.abs(third))) / MEDIAN_DEVIATION


def fit_weights(time: np.ndarray) -> np.ndarray:
    """Weights [n] with which values at `time` [n] give the least-squares polynomial's at 0."""
    return np.linalg.pinv(np.vander(time.astype(np.float64), ORDER + 1, increasing=True))[0]


def eyes_open(shapes: np.ndarray) -> np.ndarray:
    """How far the lids are apart in `shapes` [n,68,2]: [n], mean of both eyes."""
    upper, lower = shapes[:, [37, 38, 43, 44]], shapes[:, [41, 40, 47, 46]]
    return np.linalg.norm(upper - lower, axis=-1).mean(axis=-1)


def mouth_open(shapes: np.ndarray) -> np.ndarray:
    """How far the lips are apart in `shapes` [n,68,2]: [n]."""
    return np.linalg.norm(shapes[:, [61, 62, 63]] - shapes[:, [67, 66, 65]], axis=-1).mean(axis=-1)


def _pass_share(cutoff: float | np.ndarray, step: float) -> float | np.ndarray:
    """The share of the way to a new value that a low-pass filter goes in `step` frames.

    `cutoff` is its cut-off frequency in cycles a frame.
    """
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


SMOOTHERS: dict[str, Callable[..., Smoother]] = {"polynomial": Polynomial, "one_euro": OneEuro}


def build_smoother(config: Mapping[str, Any]) -> Smoother | None:
    """The smoother that `smoothing` of an extract configuration names; None for `none`.

    Raises UserError naming the key of a name, argument or value that there is not.
    """
    name, args = config["name"], config["args"]
    if name == "none":
        return None
    if name not in SMOOTHERS:
        raise UserError(f"smoothing.name={name}: expected one of none, {', '.join(SMOOTHERS)}")
    known = {field.name: field for field in fields(SMOOTHERS[name])}
    for key in [*args, *known]:
        if key not in known:
            raise UserError(f"smoothing.args.{key}: {name} has no such setting")
        low, high = known[key].metadata["range"]
        value = args.get(key)
        if type(value) not in (int, float) or not low <= value <= high:
            raise UserError(f"smoothing.args.{key}={value}: expected a number from {low} to {high}")
    return SMOOTHERS[name](**args)


@dataclass
class _TrackedFace:
    """A face in one frame, linked to the same face in frames before and after."""

    place: int  # of the frame in the sequence
    time: int
    points: np.ndarray
    before: Optional["_TrackedFace"] = None
    after: Optional["_TrackedFace"] = None

    @property
    def box(self) -> np.ndarray:
        return np.concatenate([self.points.min(axis=0), self.points.max(axis=0)])


def reach(smoother: Smoother) -> int:
    """How many frames to either side have a say in the points of a frame."""
    return smoother.radius + GAP + 1


def smoothed(
    frames: Iterable[tuple[int, list[Detection]]], smoother: Smoother
) -> Iterator[list[Detection]]:
    """The faces of each frame with smoothed landmarks, `smoother.radius` frames behind.

    `frames` are (time, faces) in order. Whatever was before and after, the result of a frame
    depends on the `reach(smoother)` frames to either side alone.
    """
    recent: deque[list[_TrackedFace]] = deque(maxlen=GAP + 1)
    waiting: deque[tuple[list[Detection], list[_TrackedFace]]] = deque()
    for place, (time, faces) in enumerate(frames):
        seen = [_TrackedFace(place, time, face.landmarks) for face in faces]
        for earlier in reversed(recent):
            _link(earlier, seen)
        recent.append(seen)
        waiting.append((faces, seen))
        if len(waiting) > smoother.radius:
            yield _smooth(*waiting.popleft(), smoother)
    while waiting:
        yield _smooth(*waiting.popleft(), smoother)


def _link(earlier: list[_TrackedFace], current: list[_TrackedFace]) -> None:
    """Links the `earlier` faces without a successor to the `current` ones, best overlap first."""
    ends = [seen for seen in earlier if seen.after is None]
    starts = [seen for seen in current if seen.before is None]
    if not ends or not starts:
        return
    boxes = np.stack([seen.box for seen in starts])
    overlap = np.stack([union_overlap(seen.box, boxes) for seen in ends])
    while overlap.max() >= MIN_OVERLAP:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        ends[i].after, starts[j].before = starts[j], ends[i]
        overlap[i], overlap[:, j] = -1, -1


def _smooth(
    faces: list[Detection], seen: list[_TrackedFace], smoother: Smoother
) -> list[Detection]:
    return [
        replace(face, landmarks=_smoothed_points(one, smoother))
        for face, one in zip(faces, seen, strict=True)
    ]


def _smoothed_points(seen: _TrackedFace, smoother: Smoother) -> np.ndarray:
    track, index = [seen], 0
    first = seen
    while (first := first.before) is not None and seen.place - first.place <= smoother.radius:
        track.insert(0, first)
        index += 1
    if first is not None:
        first.after.before = None  # lets go of what no later frame looks at
    last = seen
    while (last := last.after) is not None and last.place - seen.place <= smoother.radius:
        track.append(last)
    times = np.array([one.time for one in track])
    return smoother(times, np.stack([one.points for one in track]), index)
