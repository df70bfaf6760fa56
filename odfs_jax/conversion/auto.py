"""`merge.color=auto`: the color transfer that a clip needs, chosen from some of its faces.

What the model makes of a face is compared with the face itself, in the model's pixels and where
both masks are solid, so that neither background nor hair counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jax
import numpy as np

from odfs_jax.conversion.masks import SOLID, outline_masks
from odfs_jax.data.aligned_png import Source
from odfs_jax.data.media.frame_io import FrameReader
from odfs_jax.data.sampling import evenly_spread
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.colors import measure_bands
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.spec import to_gray
from odfs_jax.inference import Swapper

AUTO = "auto"
FACES = 12  # that are compared, evenly spread
SAME_COLOR = 3.0  # CIELAB; a difference of 2.3 is just noticeable
SAME_LIGHT = 0.06  # of the light over the face, as a standard deviation of its logarithm


@dataclass(frozen=True)
class SkinDifference:
    """How the new face's skin differs from dst's: medians over the compared faces."""

    color: float  # CIELAB distance of the mean colors
    light: float  # standard deviation over the face of the logarithm of the quotient of both lights

    @property
    def transfer(self) -> str:
        """The value of `merge.color` that fits."""
        same = self.color <= SAME_COLOR and self.light <= SAME_LIGHT
        return "none" if same else "tone"

    def __str__(self) -> str:
        return (
            f"the skins differ by {self.color:.1f} CIELAB units, "
            f"their light over the face by {100 * self.light:.0f} %"
        )


def fitting_color(swapper: Swapper, clip: Path, sources: Sequence[Source]) -> tuple[str, str]:
    """(what `merge.color=auto` stands for with the faces `sources` of `clip`, why).

    Without a face to compare, or where no mask is solid, colors stay.
    """
    difference = compare_skins(swapper, clip, sources) if sources else None
    if difference is None:
        return "none", "no face to compare"
    return difference.transfer, str(difference)


def compare_skins(swapper: Swapper, clip: Path, sources: Sequence[Source]) -> SkinDifference | None:
    """The difference of some of the faces `sources` of `clip`, or None where no mask is solid.

    Faces whose frame or points cannot be used are left out.
    """
    chosen = evenly_spread(len(sources), min(FACES, len(sources)))
    reader, size = FrameReader(clip), swapper.output_spec.resolution
    inputs, faces, hulls = [], [], []
    for source in sorted((sources[i] for i in chosen), key=lambda source: source.frame):
        points, specs = source.landmarks, (swapper.input_spec, swapper.output_spec)
        try:
            frame = reader.read(source.frame).image
            matrices = [alignment_matrix(points, s.face_type, s.resolution) for s in specs]
        except (UserError, ValueError):
            continue  # a frame or points that do not fit: the conversion names the file
        for pictures, face_from_frame, spec in zip((inputs, faces), matrices, specs, strict=True):
            pictures.append(crop_face(frame, face_from_frame, spec.resolution))
        hulls.append(outline_masks(transform(face_from_frame, points), size, ())[..., :1])
    if not faces:
        return None
    inputs, dst, hulls = (np.stack(p).astype(np.float32) / 255 for p in (inputs, faces, hulls))
    new, masks, dst_masks = jax.jit(swapper.predict)(swapper.params, inputs)
    dst_masks = hulls if dst_masks is None else dst_masks
    common = (masks > SOLID) & (dst_masks > SOLID)
    bands = measure_bands(new, dst, common)
    lights_of = to_gray(bands.own), to_gray(bands.wanted)
    new, common, (own, wanted) = jax.device_get((new, common, lights_of))

    colors, lights = [], []
    for i, where in enumerate(common[..., 0]):
        if where.any():
            means = [cv2.cvtColor(p, cv2.COLOR_RGB2LAB)[where].mean(0) for p in (new[i], dst[i])]
            colors.append(np.linalg.norm(means[0] - means[1]))
            lights.append(np.std(np.log(wanted[i][where] / own[i][where])))
    return SkinDifference(float(np.median(colors)), float(np.median(lights))) if colors else None
