"""The swapped face alone: cut out on transparent, and its mask as a picture."""

import dataclasses

import numpy as np

from odfs_jax.data.media.frames import Frame


def cut_out(frame: Frame) -> np.ndarray:
    """uint8 RGBA [H, W, 4]: the new face with its weights as straight alpha, elsewhere 0.

    The colour is the one that gives `frame.image` again when it is laid over the source.
    """
    height, width, _ = frame.image.shape
    result = np.zeros((height, width, 4), np.uint8)
    if frame.weights is None:
        return result
    rows, cols = np.nonzero(frame.weights)
    weights = frame.weights[rows, cols]
    below, merged = (p[rows, cols].astype(np.float32) for p in (frame.plate, frame.image))
    share = weights[:, None].astype(np.float32) / 255
    colour = np.rint(below + (merged - below) / share).clip(0, 255)
    result[rows, cols, :3], result[rows, cols, 3] = colour, weights
    return result


def mask_of(frame: Frame) -> Frame:
    """`frame` with its weights for a picture: black where it is the source's."""
    weights = frame.weights
    if weights is None:
        weights = np.zeros(frame.image.shape[:2], np.uint8)
    image = np.repeat(weights[..., None], 3, axis=2)
    return dataclasses.replace(frame, image=image, plate=None, stored=None)
