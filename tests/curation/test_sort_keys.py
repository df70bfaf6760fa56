"""Every order of 200 faces equals that of plain loops over NumPy, OpenCV and scikit-image.

Twelve faces repeat others, so that ties come up; faces that tie must stay in name order. The sums
of the reference are rounded, so that its own last digits do not break a tie.
"""

import itertools

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from odfs_jax.curation import measures, sort_keys
from odfs_jax.curation.sort import sort_faces
from odfs_jax.data.aligned_png import read_face, read_image_and_face


@pytest.fixture(scope="module")
def loaded(many):
    """(pictures BGR, data) of `many`, read by OpenCV."""
    return [cv2.imread(str(path)) for path in many], [read_face(path) for path in many]


def descending(values):
    return sorted(range(len(values)), key=lambda i: (-round(float(values[i]), 6), i))


def gray(image):
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def sharpness(image):
    return cv2.Laplacian(gray(image), cv2.CV_64F).var()


def min_directional_gradient(image):
    x, y = (cv2.Sobel(gray(image), cv2.CV_64F, *d, ksize=3).ravel() for d in ((1, 0), (0, 1)))
    return np.linalg.eigvalsh(np.stack([x, y]) @ np.stack([x, y]).T / len(x))[0]


def histogram_distances(images):
    hists = [[cv2.calcHist([im], [c], None, [256], [0, 256]) for c in range(3)] for im in images]
    return pairs(
        hists,
        lambda a, b: sum(
            cv2.compareHist(p, q, cv2.HISTCMP_BHATTACHARYYA) for p, q in zip(a, b, strict=True)
        ),
    )


def pairs(items, distance):
    table = np.zeros((len(items), len(items)))
    for i, one in enumerate(items):
        for j in range(i):
            table[i, j] = table[j, i] = distance(one, items[j])
    return table.round(6)


def greedy(table):
    order = [0]
    while len(order) < len(table):
        left = [i for i in range(len(table)) if i not in order]
        order.append(min(left, key=lambda i: (table[order[-1], i], i)))
    return order


def window_ssim(a, b):
    """scikit-image's SSIM in 7x7 windows, averaged over those that tile the picture."""
    _, full = structural_similarity(
        a, b, win_size=7, data_range=1.0, use_sample_covariance=False, full=True
    )
    return full[3::7, 3::7].mean()


@pytest.fixture(scope="module")
def by_structure(loaded):
    small = [cv2.resize(gray(im), (35, 35), interpolation=cv2.INTER_AREA) for im in loaded[0]]
    return pairs([tiles(image / 255) for image in small], plain_dissimilarity)


@pytest.fixture(scope="module")
def by_histogram(loaded):
    return histogram_distances(loaded[0])


@pytest.fixture(scope="module")
def by_shape(loaded):
    return pairs([f.landmarks / f.size for f in loaded[1]], lambda a, b: np.abs(a - b).sum())


def expected(key, loaded, request):
    images, faces = loaded
    hsv = [cv2.cvtColor(image, cv2.COLOR_BGR2HSV) for image in images]
    rects = [face.source.rect for face in faces]
    table = request.getfixturevalue
    match key:
        case "blur":
            return descending([sharpness(image) for image in images])
        case "motion_blur":
            return descending([min_directional_gradient(image) for image in images])
        case "hist":
            return greedy(table("by_histogram"))
        case "hist_dissim":
            return descending(table("by_histogram").sum(1).round(3))
        case "face":
            return greedy(table("by_shape"))
        case "face_dissim":
            return descending(table("by_shape").sum(1).round(2))
        case "face_yaw":
            return descending([face.pose.yaw for face in faces])
        case "face_pitch":
            return descending([face.pose.pitch for face in faces])
        case "brightness":
            return descending([image[..., 2].mean() for image in hsv])
        case "hue":
            return descending([image[..., 0].mean() for image in hsv])
        case "source_size":
            return descending([(r - x) * (b - y) for x, y, r, b in rects])
        case "origname":
            sources = [(f.source.file, f.source.frame) for f in faces]
            area = [(r - x) * (b - y) for x, y, r, b in rects]
            return sorted(range(200), key=lambda i: (*sources[i], -area[i], i))
        case "hist_blur":
            return grouped_by_histogram(table("by_histogram"), [sharpness(im) for im in images])
        case "ssim":
            return greedy(table("by_structure"))
        case "twins":
            return twins(table("by_structure"), [sharpness(image) for image in images])
        case "best":
            return spread_over_poses([sharpness(image) for image in images], faces)


def twins(distances, sharp):
    groups, left = [], descending(sharp)
    while left:
        near = [face for face in left if face == left[0] or distances[left[0], face] <= 0.03]
        groups.append(near)
        left = [face for face in left if face not in near]
    assert 3 < sum(len(group) > 1 for group in groups) < len(groups)
    return [face for group in sorted(groups, key=len, reverse=True) for face in group]


def grouped_by_histogram(distances, sharp):
    chain = greedy(distances)
    steps = [distances[a, b] for a, b in itertools.pairwise(chain)]
    groups = [[chain[0]]]
    for step, face in zip(steps, chain[1:], strict=True):
        if step > 2 * np.mean(steps):
            groups.append([])
        groups[-1].append(face)
    assert len(groups) > 3
    place = {face: n for n, face in enumerate(chain)}
    return [i for g in groups for i in sorted(g, key=lambda i: (-sharp[i], place[i]))]


def spread_over_poses(sharp, faces):
    bins = {}
    for i in descending(sharp):
        pose = faces[i].pose
        bins.setdefault((pose.yaw // 10, pose.pitch // 10), []).append(i)
    rounds = [[b[n] for b in bins.values() if n < len(b)] for n in range(200)]
    return [i for faces_ in rounds for i in sorted(faces_, key=lambda i: (-sharp[i], i))]


def tiles(image):
    cut = [image[y : y + 7, x : x + 7].ravel() for y in range(0, 35, 7) for x in range(0, 35, 7)]
    return np.stack(cut)


def plain_dissimilarity(a, b):
    ma, mb, va, vb = a.mean(1), b.mean(1), a.var(1), b.var(1)
    cov = (a * b).mean(1) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return 1 - np.mean((2 * ma * mb + c1) * (2 * cov + c2) / (ma**2 + mb**2 + c1) / (va + vb + c2))


@pytest.mark.parametrize("key", sorted(sort_keys.SORT_KEYS.keys() - {"identity"}))
def test_order_of_200_faces(key, many, loaded, request):
    found, order, bad = sort_faces(many, sort_keys.SORT_KEYS[key], "test")
    assert not bad and sorted(found) == many
    assert [many.index(path) for path in found] == expected(key, loaded, request)
    known = sort_keys.SORT_KEYS[key]
    assert (order.values is None) == (not known.value) and (order.groups is None) == (
        not known.group
    )
    for numbers in filter(lambda numbers: numbers is not None, (order.values, order.groups)):
        assert len(numbers) == len(many) and np.isfinite(numbers).all()
    if order.groups is not None:
        assert order.groups[0] == 0 and set(np.diff(order.groups)) <= {0, 1}
    elif order.values is not None:
        assert (np.diff(order.values) <= 0).all()  # largest first


def test_ssim_is_that_of_scikit_image(loaded):
    images = [cv2.resize(gray(im), (35, 35), interpolation=cv2.INTER_AREA) for im in loaded[0][:8]]
    for one in images:
        for other in images:
            ours = plain_dissimilarity(tiles(one / 255), tiles(other / 255))
            assert ours == pytest.approx(1 - window_ssim(one / 255, other / 255), abs=1e-9)


def test_identity_of_200_embeddings():
    """Three people of 100, 60 and 37 faces and three strangers, against plain loops."""
    rng = np.random.default_rng(1)
    centers = rng.normal(0, 0.08, (6, 128))
    who = rng.permutation(np.repeat(np.arange(6), (100, 60, 37, 1, 1, 1)))
    embeddings = (centers[who] + rng.normal(0, 0.015, (200, 128))).astype(np.float32)
    expected = []
    for person in sorted(set(who), key=lambda p: (-(who == p).sum(), np.argmax(who == p))):
        members = np.flatnonzero(who == person)
        middle = embeddings[members].mean(0)
        expected += sorted(members, key=lambda i: float(np.linalg.norm(embeddings[i] - middle)))
    found = sort_keys.SORT_KEYS["identity"].order(list(embeddings))
    assert found.indices.tolist() == expected
    assert np.unique(found.groups, return_counts=True)[1].tolist() == [100, 60, 37, 1, 1, 1]
    assert (who[found.indices[:100]] == who[found.indices[0]]).all() and (
        found.groups[:100] == 0
    ).all()


def test_best_covers_the_poses_with_any_number_of_faces(many):
    found, _, _ = sort_faces(many, sort_keys.SORT_KEYS["best"], "test")
    bins = [
        (int(face.pose.yaw // 10), int(face.pose.pitch // 10)) for face in map(read_face, found)
    ]
    assert len(set(bins[: len(set(bins))])) == len(set(bins)) > 50


@pytest.mark.parametrize("key", sorted(sort_keys.SORT_KEYS.keys() - {"identity"}))
def test_one_face_and_two_equal_faces(key, tmp_path, write_random):
    write_random(tmp_path, 8, copies=1)
    one, same = tmp_path / "00000_0.png", tmp_path / "00007_0.png"
    assert sort_faces([one], sort_keys.SORT_KEYS[key], "test")[0] == [one]
    assert sort_faces([one, same], sort_keys.SORT_KEYS[key], "test")[0] == [one, same]


def test_motion_and_defocus_lower_their_measures():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    moved, defocused = cv2.blur(sharp, (9, 1)), cv2.blur(sharp, (3, 3))
    assert measures.sharpness(sharp) > max(map(measures.sharpness, (moved, defocused)))
    # The same variance of the Laplacian is worse when it comes from one direction only.
    assert measures.min_directional_gradient(moved) < 0.2 * measures.min_directional_gradient(
        defocused
    )


def test_pictures_are_read_as_other_programs_see_them(many, loaded):
    image, _ = read_image_and_face(many[3])
    np.testing.assert_array_equal(image[..., ::-1], loaded[0][3])
