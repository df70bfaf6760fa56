"""Augmentation: each part against numpy and OpenCV, and what a sample must never do."""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.data import augment
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.faces.warp import warp_affine

STORED, RESOLUTION = 40, 16
SEEN = FaceSpec(FaceType.HALF, RESOLUTION)
KEYS = ("rotation", "scale", "shift", "flip", "warp", "color", "light", "hsv", *augment.LOSSES)
NONE = dict.fromkeys(KEYS, 0.0) | {"color_transfer": "none"}
USUAL = NONE | {"rotation": 10.0, "scale": 0.05, "shift": 0.05, "flip": 0.4, "warp": 0.24}
# Model pixels to stored ones. No place is a whole number: there XLA:CPU may round a place apart for
# its index and for its weight, and then reads the neighbouring pixel.
CUT = np.array([[2.2013, 0.3007, 1.5019], [-0.3007, 2.2013, 4.0041]], np.float32)


@jax.jit
def plain(image, cut):
    """The stored face as it is: (face, mask)."""
    picture = image.astype(jnp.float32) / 255
    whole = warp_affine(picture, jnp.asarray(cut), RESOLUTION, RESOLUTION)
    return whole[..., :3], whole[..., 3:]


def sample_of(key, image, cut, *, settings):
    """(warped face, face, mask) of a network that rebuilds what it sees."""
    specs = {"input_spec": SEEN, "target_specs": {"face": SEEN}, "masks": ("mask",)}
    warped, targets = augment.sample(key, image, cut, augment_cfg=settings, **specs)
    return warped, targets["face"]["face"], targets["face"]["mask"]


def sampler(**settings):
    return jax.jit(partial(sample_of, settings=NONE | settings))


@pytest.fixture(scope="module")
def image():
    """A stored face: noise at a scale that bilinear reads can follow, and a mask."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.random((STORED, STORED, 3)), (0, 0), 1.5)
    picture = 20 + 150 * (picture - picture.min()) / np.ptp(picture)
    y, x = np.mgrid[:STORED, :STORED] - STORED / 2
    mask = np.where(np.hypot(x, y) < STORED / 3, 255, 0)
    return np.concatenate([picture, mask[..., None]], -1).astype(np.uint8)


def enlarged(nodes, count):
    """A square grid of nodes read at `count` places a side, by numpy."""
    old, new = np.linspace(0, 1, len(nodes)), np.linspace(0, 1, count)
    rows = np.stack([np.interp(new, old, nodes[:, j]) for j in range(len(nodes))], 1)
    return np.stack([np.interp(new, old, row) for row in rows])


def shifts(grid, cols, rows):
    """The grid's shifts in pixels at places given in cells; OpenCV is exact on one channel."""
    border = cv2.BORDER_REPLICATE
    planes = [
        cv2.remap(
            np.ascontiguousarray(grid[..., i]), cols, rows, cv2.INTER_LINEAR, borderMode=border
        )
        for i in (0, 1)
    ]
    return STORED * np.stack(planes, -1)


def test_the_grid_is_one_of_three_finenesses_within_its_bound():
    strength, seen = 0.24, set()
    draw = jax.jit(jax.vmap(lambda key: augment.random_grid(key, strength)))
    grids = np.asarray(draw(jax.random.split(jax.random.key(0), 60)))
    assert grids.shape == (60, 9, 9, 2)
    for grid in grids:
        assert not grid[[0, -1]].any() and not grid[:, [0, -1]].any()
        for cells in (2, 4, 8):
            coarse = grid[:: 8 // cells, :: 8 // cells]
            again = np.stack([enlarged(coarse[..., i], 9) for i in (0, 1)], -1)
            if np.allclose(again, grid, atol=1e-6):
                break
        assert 0 < np.abs(grid).max() <= strength / cells + 1e-6
        seen.add(cells)
    assert seen == {2, 4, 8}
    reach = np.abs(grids[:, 4, 4]).max()
    assert 0.6 * strength / 2 < reach  # the bound is not merely respected but used


def test_warped_coordinates_are_opencvs(image):
    grid = np.random.default_rng(1).normal(0, 0.05, (9, 9, 2)).astype(np.float32)
    y, x = np.mgrid[:STORED, :STORED].astype(np.float32)
    rows, cols = jax.jit(augment.warp_coordinates, static_argnums=3)(grid, y, x, STORED)
    at = np.linspace(0, 8, STORED, dtype=np.float32)
    shift = shifts(grid, *np.meshgrid(at, at))
    tolerance = 0.05 if cv2.__version__ < "5" else 1e-3  # OpenCV 4 rounds to 1/32 of a cell
    np.testing.assert_allclose(rows, y + shift[..., 0], atol=tolerance)
    np.testing.assert_allclose(cols, x + shift[..., 1], atol=tolerance)


def test_a_warped_sample_is_opencvs(image, monkeypatch):
    """The whole way of the warped picture, with a known grid: cut, then shift, then one read."""
    grid = np.random.default_rng(2).normal(0, 0.02, (9, 9, 2)).astype(np.float32)
    monkeypatch.setattr(augment, "random_grid", lambda key, strength: jnp.asarray(grid))
    warped, face, _ = sampler()(jax.random.key(0), image, CUT)
    x, y = np.meshgrid(*[np.arange(RESOLUTION, dtype=np.float32)] * 2)
    cols, rows = (row[0] * x + row[1] * y + row[2] for row in CUT)
    picture = image[..., :3].astype(np.float32) / 255

    def read(cols, rows):
        return cv2.remap(picture, cols, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    per_cell = np.float32(8 / (STORED - 1))
    shift = shifts(grid, cols * per_cell, rows * per_cell)
    tolerance = 2e-2 if cv2.__version__ < "5" else 1e-3
    np.testing.assert_allclose(face, read(cols, rows), atol=tolerance)
    np.testing.assert_allclose(
        warped, read(cols + shift[..., 1], rows + shift[..., 0]), atol=tolerance
    )
    assert np.abs(np.asarray(warped) - face).max() > 0.01


def test_the_transform_is_a_similarity_within_its_ranges():
    settings = {"rotation": 10.0, "scale": 0.05, "shift": 0.05}
    draw = jax.jit(jax.vmap(lambda key: augment.random_transform(key, STORED, settings)))
    found = np.asarray(draw(jax.random.split(jax.random.key(1), 500)), np.float64)
    linear, offset = found[..., :2], found[..., 2]
    scale = np.sqrt(np.linalg.det(linear))
    unit = np.broadcast_to(np.eye(2), linear.shape)
    rotation = linear / scale[:, None, None]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), unit, atol=1e-6)
    angle = np.degrees(np.arctan2(linear[:, 0, 1], linear[:, 0, 0]))
    middle = np.full(2, (STORED - 1) / 2)
    moved = linear @ middle + offset - middle
    for values, bound in ((angle, 10.0), (1 / scale - 1, 0.05), (moved, 0.05 * STORED)):
        assert 0.95 * bound < values.max() <= bound + 1e-4
        assert -0.95 * bound > values.min() >= -bound - 1e-4
        assert abs(values.mean()) < 0.1 * bound


def test_without_any_setting_a_sample_is_the_stored_face(image):
    warped, face, mask = sampler()(jax.random.key(0), image, CUT)
    expected, expected_mask = plain(image, CUT)
    np.testing.assert_allclose(face, expected, atol=1e-4)
    np.testing.assert_allclose(warped, expected, atol=1e-4)
    np.testing.assert_allclose(mask, expected_mask, atol=1e-4)
    assert (warped.shape, face.shape, mask.shape) == ((16, 16, 3), (16, 16, 3), (16, 16, 1))


def test_a_flip_is_the_mirror_image(image):
    flipped = sampler(flip=1.0)(jax.random.key(0), image, CUT)
    expected, expected_mask = (np.asarray(a)[:, ::-1] for a in plain(image, CUT))
    for found, mirrored in zip(flipped, (expected, expected, expected_mask), strict=True):
        np.testing.assert_allclose(found, mirrored, atol=1e-4)


def test_as_many_flips_as_asked_for(image):
    many = jax.jit(jax.vmap(partial(sampler(flip=0.4), image=image, cut=CUT)))
    _, faces, _ = many(jax.random.split(jax.random.key(2), 300))
    upright = np.asarray(plain(image, CUT)[0])
    share = (np.abs(np.asarray(faces) - upright).mean((1, 2, 3)) > 1e-3).mean()
    assert 0.3 < share < 0.5


def test_light_is_one_without_settings_and_within_bounds_with_them():

    def light(key, settings):
        return augment.random_light(key, SEEN, settings)(SEEN)

    np.testing.assert_array_equal(light(jax.random.key(0), NONE), np.ones((16, 16, 3)))
    draw = jax.jit(jax.vmap(partial(light, settings=NONE | {"color": 0.2, "light": 0.1})))
    drawn = draw(jax.random.split(jax.random.key(3), 50))
    logs = np.log(drawn)
    assert 0.25 < np.abs(logs).max() <= 0.2 + 3 * 0.1 + 1e-5
    tint = logs - logs.mean(-1, keepdims=True)  # the same at every pixel
    np.testing.assert_allclose(tint, np.broadcast_to(tint[:, :1, :1], tint.shape), atol=1e-5)


def test_input_and_target_get_the_same_light_and_the_mask_none(image):
    """On an even picture the warp changes nothing, so that input and target must be equal."""
    even = np.concatenate([np.full((STORED, STORED, 3), 90, np.uint8), image[..., 3:]], -1)
    drawn = sampler(warp=0.24, light=0.2, color=0.2)
    for key in jax.random.split(jax.random.key(4), 5):
        warped, face, mask = drawn(key, even, CUT)
        np.testing.assert_allclose(warped, face, atol=1e-5)
        assert np.ptp(np.asarray(face)) > 0.01
        np.testing.assert_allclose(mask, plain(even, CUT)[1], atol=1e-4)


def test_everything_stays_between_0_and_1(image):
    bright = np.maximum(image, 200)
    drawn = jax.jit(jax.vmap(partial(sampler(**(USUAL | {"light": 1.0})), image=bright, cut=CUT)))
    for part in drawn(jax.random.split(jax.random.key(5), 20)):
        assert part.dtype == jnp.float32
        assert part.min() >= 0 and part.max() <= 1


def test_the_target_moves_with_its_mask(image):
    """A picture that shows its own mask: face and mask come out alike under any transform."""
    self_portrait = np.repeat(image[..., 3:], 4, -1)
    settings = USUAL | {"warp": 0.0}
    drawn = sampler(**settings)
    for key in jax.random.split(jax.random.key(6), 4):
        warped, face, mask = drawn(key, self_portrait, CUT)
        np.testing.assert_allclose(face, np.repeat(mask, 3, -1), atol=1e-5)
        np.testing.assert_allclose(warped, face, atol=2e-3)  # the warp of no strength: rounding


def test_a_batch_is_its_samples_one_by_one(image):
    keys = jax.random.split(jax.random.key(7), 2)
    one = partial(sample_of, settings=USUAL | {"light": 0.1})
    many = jax.jit(jax.vmap(one, (0, None, None)))(keys, image, CUT)
    for i, key in enumerate(keys):
        for batched, alone in zip(many, jax.jit(one)(key, image, CUT), strict=True):
            np.testing.assert_allclose(batched[i], alone, atol=1e-3)
    assert np.abs(np.asarray(many[1][0]) - many[1][1]).max() > 0.01  # keys matter


SMALL = FaceSpec(FaceType.HALF, RESOLUTION, gray=True)
LARGE = FaceSpec(FaceType.FULL, RESOLUTION * 5 // 2)
TWO_VIEWS = {
    "input_spec": SMALL,
    "target_specs": {"small": SMALL, "large": LARGE},
    "masks": ("mask",),
}


def read_by_opencv(image, cut, view, reads):
    """`image` as `view`, of a face whose half face lies at `cut`; pixels are means of reads²."""
    places = (np.arange(view.resolution * reads, dtype=np.float32) + 0.5) / reads - 0.5
    corners = np.stack([*np.meshgrid(places, places), np.ones((len(places),) * 2)])
    in_half_face = np.einsum("ij,jyx->iyx", SEEN.matrix_from(view), corners)
    matrix = np.einsum("ij,jyx->iyx", cut, np.concatenate([in_half_face, corners[2:]]))
    cols, rows = matrix.astype(np.float32)
    picture = image.astype(np.float32) / 255
    read = cv2.remap(picture, cols, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(read, (view.resolution,) * 2, interpolation=cv2.INTER_AREA)


def test_views_of_other_sizes_and_kinds_are_opencvs(image):
    """The small grey half face is averaged from four reads, for the store suits the large face."""
    draw = jax.jit(partial(augment.sample, augment_cfg=NONE, **TWO_VIEWS))
    seen, rebuilt = draw(jax.random.key(0), image, CUT)
    tolerance = 2e-2 if cv2.__version__ < "5" else 1e-3
    for name, view, reads in (("small", SMALL, 2), ("large", LARGE, 1)):
        expected = read_by_opencv(image, CUT, view, reads)
        face, mask = (rebuilt[name][part] for part in ("face", "mask"))
        colour = expected[..., :3]
        wanted = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)[..., None] if view.gray else colour
        np.testing.assert_allclose(face, wanted, atol=tolerance)
        np.testing.assert_allclose(mask, expected[..., 3:], atol=tolerance)
    np.testing.assert_allclose(seen, np.repeat(rebuilt["small"]["face"], 3, -1), atol=1e-3)


def test_all_views_of_a_sample_are_moved_and_lit_alike(image):
    """The small face is the middle of the large one, whatever is drawn."""
    settings = USUAL | {"flip": 0.5, "light": 0.3, "color": 0.2}
    draw = jax.jit(partial(augment.sample, augment_cfg=settings, **TWO_VIEWS))
    matrix = LARGE.matrix_from(SMALL).astype(np.float64) - [[0, 0, 0.5], [0, 0, 0.5]]
    right, flipped = [], []
    for key in jax.random.split(jax.random.key(8), 6):
        _, rebuilt = draw(key, image, CUT)
        large = cv2.blur(
            np.concatenate(list(rebuilt["large"].values()), axis=-1), (2, 2), anchor=(0, 0)
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        middle = cv2.warpAffine(large, matrix, (RESOLUTION, RESOLUTION), flags=flags)
        luma = cv2.cvtColor(np.ascontiguousarray(middle[..., :3]), cv2.COLOR_RGB2GRAY)
        for found, wanted in zip(rebuilt["small"].values(), (luma, middle[..., 3]), strict=True):
            found, wanted = np.asarray(found)[1:-1, 1:-1, 0], wanted[1:-1, 1:-1]
            right.append(np.abs(found - wanted).mean())
            flipped.append(np.abs(found[:, ::-1] - wanted).mean())
    assert max(right) < 0.03  # other means at sharp edges
    assert np.mean(flipped) > 3 * np.mean(right)


def test_the_warp_ends_where_it_is_told_to(image):
    settings = NONE | {"warp": 0.24, "warp_until": 5, "transform_until": None}

    @jax.jit
    def draw(step):
        return sample_of(jax.random.key(1), image, CUT, settings=augment.at(settings, step))

    (warped, face, _), (plain_face, same, _) = draw(4), draw(5)
    assert np.abs(warped - face).mean() > 0.01
    np.testing.assert_array_equal(plain_face, same)
    assert augment.at(settings | {"warp_until": None}, 9)["warp"] == 0.24


def test_faces_keep_their_places_from_where_they_are_told_to(image):
    settings = NONE | {"rotation": 10.0, "scale": 0.05, "shift": 0.05, "transform_until": 5}

    @jax.jit
    def draw(step):
        now = augment.at(settings | {"warp_until": None}, step)
        moved = sample_of(jax.random.key(1), image, CUT, settings=now)
        return moved[1], sample_of(jax.random.key(1), image, CUT, settings=NONE)[1]

    moved, still = draw(4)
    settled, same = draw(5)
    np.testing.assert_array_equal(settled, same)
    assert np.abs(moved - still).mean() > 0.01


def test_each_side_may_have_its_own_flips_and_only_src_changes_hue():
    settings = USUAL | {"flip_src": None, "flip_dst": 1.0, "hsv": 0.1, "color_transfer": "rct"}
    src, dst = (augment.of_side(settings, side) for side in ("src", "dst"))
    assert (src["flip"], src["hsv"], src["color_transfer"]) == (0.4, 0.1, "rct")
    assert (dst["flip"], dst["hsv"], dst["color_transfer"]) == (1.0, 0.0, "none")
    off = augment.of_side(settings | {"flip_src": 0.0}, "src")
    assert off["flip"] == 0.0


def test_another_hue_turns_all_pixels_alike():
    """Against OpenCV: all hues have moved by one angle, saturation and value by one amount."""
    picture = np.random.default_rng(0).uniform(0.3, 0.6, (8, 8, 3)).astype(np.float32)
    changed = jax.jit(augment.random_hsv)(jax.random.key(1), picture, 0.2)
    before, after = (cv2.cvtColor(np.array(x), cv2.COLOR_RGB2HSV) for x in (picture, changed))
    turn = (after - before)[..., 0].ravel()
    turn = (turn + 180) % 360 - 180
    assert np.ptp(turn) < 0.1 and 0.1 < abs(turn.mean()) < 36
    for change in ((after - before)[..., 1], (after - before)[..., 2]):
        assert np.ptp(change) < 1e-4 and 1e-3 < abs(change.mean()) < 0.1
    np.testing.assert_allclose(
        augment.random_hsv(jax.random.key(1), picture, 0.0), picture, atol=1e-6
    )
