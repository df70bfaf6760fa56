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


def test_limits():
    assert SkinDifference(2.9, 0.05).transfer == "none"
    assert SkinDifference(3.1, 0.0).transfer == SkinDifference(0.0, 0.07).transfer == "tone"


def test_the_choice_is_said_and_can_be_changed(workspace, caplog):
    """What is written beside the result is a file of shots with every setting."""
    caplog.set_level("INFO", "odfs_jax")
    convert_workspace(workspace, "merge=auto", "merge.anchor=face")
    (said,) = [line for line in caplog.messages if line.startswith("merge.color=")]
    (shot,) = read_shots(
        workspace / "result_merge.shots.yaml", compose("convert", ["merge=raw", "data=dst"]).merge
    )
    assert said.startswith(f"merge.color={shot.merge.color}: ") and shot.merge.mask == "both"
    assert shot.merge.color in ("none", "tone")
