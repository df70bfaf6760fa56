"""Only the faces of some frames, only those of one person."""

import dataclasses
import logging

import cv2
import numpy as np
import pytest
from workspaces import convert_workspace, read_clip, write_clip

from odfs_jax.conversion.target_faces import build_selection, find_target_faces
from odfs_jax.data.aligned_png import read_face, write_face
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.errors import UserError
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.crop import crop_face


@pytest.mark.parametrize(
    ("frames", "selected"),
    [
        (None, range(12)),
        (7, [7]),
        ("3-5", [3, 4, 5]),
        ("9-", [9, 10, 11]),
        ("-3", [0, 1, 2, 3]),
        (["0-1", 4, "10-"], [0, 1, 4, 10, 11]),
        ("2,4 , 6-7", [2, 4, 6, 7]),
        ("100-200", []),
    ],
)
def test_ranges_of_frames(frames, selected):
    selection = build_selection(frames, None, 0.5)
    assert [frame for frame in range(12) if selection.has_frame(frame)] == list(selected)


@pytest.mark.parametrize("frames", ["5-3", "a", "-", "1-2-3", "", [1.5]])
def test_what_is_no_range_is_refused(frames):
    with pytest.raises(UserError, match="frames="):
        build_selection(frames, None, 0.5)


def test_a_person_that_cannot_be_told_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"identity=.*missing: no such file"):
        build_selection(None, str(tmp_path / "missing"), 0.5)
    (tmp_path / "photo.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3)))[1].tobytes())
    with pytest.raises(UserError, match="not an aligned face of odfs-jax"):
        build_selection(None, str(tmp_path / "photo.png"), 0.5)
    with pytest.raises(UserError, match="identity_distance=0: expected above 0"):
        build_selection(None, str(tmp_path / "photo.png"), 0.0)


def test_only_the_person_is_swapped(workspace, actor_faces, caplog):
    """Frames 0 to 2 show ada, the others ben; the reference is another picture of ada."""
    caplog.set_level(logging.INFO)
    ada, ben = (sorted(n for n in actor_faces if n.startswith(who)) for who in ("ada", "ben"))
    assert len(ada) > 1 and ben
    for path in sorted((workspace / "dst/aligned").iterdir()):
        index = int(path.stem.split("_")[0])
        image, face = actor_faces[ada[0] if index < 3 else ben[0]]
        place = read_face(path).source
        write_face(path, image, dataclasses.replace(face, source=place))
    write_face(workspace / "ada.png", *actor_faces[ada[1]])
    convert_workspace(workspace, f"identity={workspace}/ada.png", f"output.path={workspace}/out")
    assert "2 faces swapped" in caplog.messages[-1]
    assert "3 faces not selected" in caplog.messages[-1]
    with pytest.raises(UserError, match="frames= and identity= leave none of its 5 faces"):
        convert_workspace(workspace, f"identity={workspace}/ada.png", "frames=3-")


def test_frames_that_are_not_selected_pass_untouched(workspace, caplog):
    caplog.set_level(logging.INFO)
    convert_workspace(workspace, "frames=[0,4-]", f"output.path={workspace}/out")
    assert "3 faces swapped" in caplog.messages[-1]
    assert "3 frames not selected, 2 faces not selected" in caplog.messages[-1]
    assert "6 frames" in caplog.messages[-1] and "0 frames without a face" in caplog.messages[-1]
    convert_workspace(workspace, "frames=0", f"output.path={workspace}/first")
    one, other = (sorted((workspace / n).glob("*.png")) for n in ("out", "first"))
    same = [
        (cv2.imread(str(a)) == cv2.imread(str(b))).all() for a, b in zip(one, other, strict=True)
    ]
    assert same == [True, True, True, True, False, False]


def test_a_clip_that_was_renamed_is_known_by_its_faces(workspace, smooth_picture, caplog):
    """By what its frames show; another clip of the same size and times is another clip."""
    caplog.set_level(logging.INFO)
    folder, clip = workspace / "dst" / "aligned", workspace / "renamed.mp4"
    frames = [frame.to_ndarray(format="rgb24") for frame in read_clip(workspace / "dst.mp4")[0]]
    for path in folder.glob("*.png"):
        face = read_face(path)
        matrix = alignment_matrix(face.source.landmarks, face.face_type, face.size)
        write_face(path, crop_face(frames[face.source.frame], matrix, face.size), face)
    (workspace / "dst.mp4").rename(clip)
    with open_frames(clip) as source:
        assert len(find_target_faces(folder, source).sources) == 5
    assert f"{clip}: shows the faces of dst.mp4, and is taken for it" in caplog.messages
    write_clip(clip, [np.roll(smooth_picture(*frames[0].shape[:2], 9), 5 * i, 1) for i in range(6)])
    with open_frames(clip) as source, pytest.raises(UserError, match=r"rename it back to dst\.mp4"):
        find_target_faces(folder, source)
