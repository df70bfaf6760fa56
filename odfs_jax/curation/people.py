"""Which faces are of one person: groups of near identity embeddings."""

import numpy as np

# Of dlib's embedding: frames of one synthetic actor are .13 to .22 apart, of two actors .54 to .74;
# dlib's own .6 takes two of the actors for one.
SAME_PERSON = 0.5
ROWS = 1024  # of the distances made at a time


def people(embeddings: np.ndarray) -> list[np.ndarray]:
    """Indices of the faces [N, 128] of each person, the most frequent person first.

    The face with most others within SAME_PERSON and all those are one person; then the same with
    the faces left over. A group has its most typical face, the nearest to its mean, first. Faces
    like no other make groups of one.
    """
    near = _near(embeddings)
    counts = near.sum(1)
    left = np.ones(len(embeddings), bool)
    groups = []
    while left.any():
        seed = np.where(left, counts, -1).argmax()
        group = np.flatnonzero(near[seed] & left)
        left[group] = False
        counts -= near[group].sum(0)
        distance = np.linalg.norm(embeddings[group] - embeddings[group].mean(0), axis=1)
        groups.append(group[np.argsort(distance, kind="stable")])
    return groups


def _near(embeddings: np.ndarray) -> np.ndarray:
    """bool [N, N]: whether two faces are within SAME_PERSON; symmetric."""
    squares = (embeddings**2).sum(1)
    near = np.zeros((len(embeddings), len(embeddings)), bool)
    for start in range(0, len(embeddings), ROWS):
        rows = slice(start, start + ROWS)
        products = embeddings[rows] @ embeddings.T
        near[rows] = squares[rows, None] + squares - 2 * products < SAME_PERSON**2
    near |= near.T
    np.fill_diagonal(near, True)
    return near
