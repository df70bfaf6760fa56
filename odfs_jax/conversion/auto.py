"""`merge.color=auto` and `merge.mask=auto`: what a clip needs, chosen from some of its faces.

What the model makes of a face is compared with the face itself, in the model's pixels: its colors
where both masks are solid, so that neither background nor hair counts; and where dst's face goes on
beyond the new one's mask, whether the network does with skin.
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
LIKE_SKIN = 25.0  # CIELAB from the face's mean color: shaded skin is nearer, hair is farther away
MOSTLY = 0.9  # share of what lies beyond the mask that must be like skin


@dataclass(frozen=True)
class SkinDifference:
    """How the new face's skin differs from dst's: medians over the compared faces."""

    color: float  # CIELAB distance of the mean colors
    light: float  # standard deviation over the face of the logarithm of the quotient of both lights
    beyond: float = 0.0  # share of dst's face beyond the new one's mask where the network has skin

    @property
    def transfer(self) -> str:
        """The value of `merge.color` that fits."""
        same = self.color <= SAME_COLOR and self.light <= SAME_LIGHT
        return "none" if same else "tone"

    @property
    def mask(self) -> str:
        """The value of `merge.mask` that fits."""
        return "dst" if self.beyond >= MOSTLY else "both"

    def __str__(self) -> str:
        return (
            f"the skins differ by {self.color:.1f} CIELAB units, "
            f"their light over the face by {100 * self.light:.0f} %"
        )


def fitting(swapper: Swapper, clip: Path, sources: Sequence[Source]) -> dict[str, tuple[str, str]]:
    """{"color": (what `merge.color=auto` stands for with the faces `sources` of `clip`, why), ...}.

    The same of "mask". Without a face to compare, or where no mask is solid, colors stay, and the
    mask is where both are.
    """
    difference = compare_skins(swapper, clip, sources) if sources else None
    if difference is None:
        return {"color": ("none", "no face to compare"), "mask": ("both", "no face to compare")}
    more = f"the network has skin in {100 * difference.beyond:.0f} % of what dst's face has more"
    return {"color": (difference.transfer, str(difference)), "mask": (difference.mask, more)}


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
    has_own = dst_masks is not None
    dst_masks = dst_masks if has_own else hulls
    common = (masks > SOLID) & (dst_masks > SOLID)
    more = (masks < 1 - SOLID) & (dst_masks > SOLID)
    bands = measure_bands(new, dst, common)
    lights_of = to_gray(bands.own), to_gray(bands.target)
    new, common, more, (own, wanted) = jax.device_get((new, common, more, lights_of))

    colors, lights, like_skin = [], [], []
    for i, where in enumerate(common[..., 0]):
        if where.any():
            face, dst_face = (cv2.cvtColor(p, cv2.COLOR_RGB2LAB) for p in (new[i], dst[i]))
            skin = face[where].mean(0)
            colors.append(np.linalg.norm(skin - dst_face[where].mean(0)))
            lights.append(np.std(np.log(wanted[i][where] / own[i][where])))
            like_skin.append(np.linalg.norm(face[more[i, ..., 0]] - skin, axis=-1) < LIKE_SKIN)
    if not colors:
        return None
    beyond = np.concatenate(like_skin)
    share = (float(beyond.mean()) if beyond.size else 1.0) if has_own else 0.0
    return SkinDifference(float(np.median(colors)), float(np.median(lights)), share)
