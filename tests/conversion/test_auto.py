"""`merge.color=auto`: what is compared, and what follows from it."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from workspaces import convert_workspace

from odfs_jax.config import compose
from odfs_jax.conversion.auto import SkinDifference, compare_skins
from odfs_jax.conversion.shots import read_shots
from odfs_jax.conversion.target_faces import find_target_faces
from odfs_jax.data.media.frame_io import open_frames


@pytest.fixture
def sources(workspace):
    with open_frames(workspace / "dst.mp4") as clip:
        targets = find_target_faces(workspace / "dst" / "aligned", clip)
    return targets.sources


@pytest.mark.parametrize(
    ("change", "color", "chosen"),
    [
        (lambda faces: faces, (0, 0.1), "none"),
        (lambda faces: 0.5 * faces, (10, 60), "tone"),
        (
            lambda faces: faces * jnp.linspace(0.6, 1.4, faces.shape[2])[None, None, :, None],
            (0, 60),
            "tone",
        ),
    ],
    ids=["the same skin", "a darker one", "light from one side"],
)
def test_colors_are_transferred_where_skins_or_their_light_differ(
    change, color, chosen, identity_swapper, workspace, sources
):
    difference = compare_skins(identity_swapper(32, change), workspace / "dst.mp4", sources)
    assert color[0] <= difference.color <= color[1]
    assert difference.transfer == chosen


def test_no_solid_mask_is_no_difference(identity_swapper, workspace, sources):
    swapper = identity_swapper(32)
    empty = lambda params, faces: (faces, 0 * faces[..., :1], None)  # noqa: E731
    faint = type(swapper)(empty, {}, swapper.input_spec, swapper.output_spec)
    assert compare_skins(faint, workspace / "dst.mp4", sources) is None


def test_faces_that_cannot_be_used_are_left_out(identity_swapper, workspace, sources):
    """A frame that the clip does not have, and points of which no face can be made."""
    swapper, clip = identity_swapper(32), workspace / "dst.mp4"
    late = replace(sources[0], frame=10_000)
    nowhere = replace(sources[0], landmarks=np.zeros((68, 2)))
    assert compare_skins(swapper, clip, [late, nowhere]) is None
    assert compare_skins(swapper, clip, [late, *sources, nowhere]) is not None


@pytest.mark.parametrize(
    ("paint", "mask"),
    [
        (lambda faces, own: jnp.where(own > 0, faces, 0.6), "dst"),
        (lambda faces, own: jnp.where(own > 0, faces, 0.0), "both"),
    ],
    ids=["it goes on with skin", "it paints hair"],
)
def test_the_mask_is_dsts_where_the_network_goes_on_with_skin(
    paint, mask, identity_swapper, workspace, sources
):
    """The new face ends at a third of dst's, which is the upper two thirds of the picture."""

    def predict(params, faces):
        rows = jnp.linspace(0, 1, faces.shape[1])[None, :, None, None]
        own = jnp.broadcast_to(rows < 1 / 3, (*faces.shape[:3], 1)).astype(jnp.float32)
        dst = jnp.broadcast_to(rows < 2 / 3, own.shape).astype(jnp.float32)
        return paint(0 * faces + 0.6, own), own, dst

    plain = identity_swapper(32)
    spec = plain.input_spec
    swapper = type(plain)(predict, {}, spec, plain.output_spec, has_dst_mask=True)
    assert compare_skins(swapper, workspace / "dst.mp4", sources).mask == mask


def test_a_network_without_dsts_mask_goes_on_nowhere(identity_swapper, workspace, sources):
    assert compare_skins(identity_swapper(32), workspace / "dst.mp4", sources).mask == "both"


def test_limits():
    assert SkinDifference(2.9, 0.05).transfer == "none"
    assert SkinDifference(3.1, 0.0).transfer == SkinDifference(0.0, 0.07).transfer == "tone"


def test_the_choice_is_said_and_can_be_changed(workspace, caplog):
    """What is written beside the result is a file of shots with every setting."""
    caplog.set_level("INFO", "odfs_jax")
    convert_workspace(workspace, "merge=auto", "merge.anchor=face")
    said, of_mask = [line for line in caplog.messages if line.startswith("merge.")]
    (shot,) = read_shots(
        workspace / "result_merge.shots.yaml", compose("convert", ["merge=raw", "data=dst"]).merge
    )
    assert said.startswith(f"merge.color={shot.merge.color}: ")
    assert of_mask.startswith(f"merge.mask={shot.merge.mask}: ")
    assert shot.merge.color in ("none", "tone")
