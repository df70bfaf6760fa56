"""S3FD against face-alignment's own network."""

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from odfs_jax.extraction.weights import flat_from_torch
from odfs_jax.nets.detectors import s3fd


@pytest.mark.parametrize("shape", [(135, 100), (64, 96)])
def test_logits_and_locations_equal_face_alignments(shape):
    torch = pytest.importorskip("torch")
    pytest.importorskip("face_alignment")
    from face_alignment.detection.sfd.net_s3fd import s3fd as theirs

    torch.manual_seed(0)
    net = theirs().eval()
    x = np.random.default_rng(0).uniform(0, 255, (1, *shape, 3)).astype(np.float32)
    pixels = (x - np.array(s3fd.MEAN, np.float32))[..., ::-1].transpose(0, 3, 1, 2)
    with torch.no_grad():
        maps = [y.permute(0, 2, 3, 1).numpy() for y in net(torch.tensor(pixels.copy()))]
    assert [y.shape[1:3] for y in maps[::2]] == s3fd.map_sizes(*shape)
    flat = flat_from_torch({name: value.numpy() for name, value in net.state_dict().items()})
    variables = unflatten_dict(flat, sep="/")
    logits, locations = jax.jit(s3fd.S3fdNet().apply)(variables, x)
    theirs = np.concatenate([(y[..., 1] - y[..., 0]).reshape(1, -1) for y in maps[::2]], axis=1)
    np.testing.assert_allclose(logits, theirs, atol=1e-4, rtol=0)
    theirs = np.concatenate([y.reshape(1, -1, 4) for y in maps[1::2]], axis=1)
    np.testing.assert_allclose(locations, theirs, atol=1e-4, rtol=0)


def test_boxes_without_offsets_are_the_anchors():
    count = sum(rows * columns for rows, columns in s3fd.map_sizes(64, 96))
    boxes = np.asarray(s3fd.decode(np.zeros((1, count, 4), np.float32), 64, 96))[0]
    np.testing.assert_allclose(boxes[0], (-6, -6, 10, 10))  # 16 px about the middle of 4 px
    np.testing.assert_allclose(boxes[24], (-6, -2, 10, 14))  # one row of 96 / 4 further
    np.testing.assert_allclose(boxes[-1, 2:] - boxes[-1, :2], 512)
