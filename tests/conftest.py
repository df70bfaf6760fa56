"""JAX made strict for the whole suite; compiled programs are cached between runs."""

import gc
import json
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("GLIBC_TUNABLES", "")  # else a command called in this process starts it anew
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # of commands that tests start, too
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_cpu_use_fusion_emitters=false"  # the older ones compile four times as fast
    + " --xla_cpu_max_isa=AVX"  # but round one number in two ways, where a CPU has fused products
    + " --xla_cpu_parallel_codegen_split_count=1"  # the cores are busy with other tests
    + " --xla_cpu_collective_call_terminate_timeout_seconds=600"  # 40 ends a busy machine's tests
)

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import av
import cv2
import hypothesis
import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import ModelConfig
from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import MEAN_FACE, alignment_matrix
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.types import FaceType
from odfs_jax.nets import build_mask_net
from odfs_jax.saved_model import MASK_NET
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History

# An example takes longer than its usual 0.2 s where the machine is busy, or something compiles.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/odfs_jax_tests").expanduser()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_collection_finish() -> None:
    """Tracing makes many objects that live on: looking for garbage often is a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


OPTIMIZED = (  # long loops, or what compilers do to them
    "tests/extraction/",
    "tests/nets/kernels/test_dispatch.py::test_a_gradient_penalty",
    "tests/nets/kernels/test_dispatch.py::test_updating_large_kernels",
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Programs that are run a few times only are not worth most of what makes them fast."""
    jax.config.update("jax_disable_most_optimizations", not item.nodeid.startswith(OPTIMIZED))


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """A thousand tests' compiled programs in one process end in a crash inside XLA."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="session")
def _own_key(tmp_path_factory):
    """The key that results are signed with is made for the tests, not for who runs them."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture
def held_elsewhere() -> Callable[[AbstractContextManager], AbstractContextManager]:
    """with held_elsewhere(lock): another thread is in the context `lock` meanwhile."""

    @contextmanager
    def held(lock: AbstractContextManager) -> Iterator[None]:
        begun, done = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                begun.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        begun.wait()
        try:
            yield
        finally:
            done.set()
            thread.join()

    return held


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def write_faceset() -> Callable[..., None]:
    """write(folder, count, size, face_type, seed): aligned PNGs of smooth random pictures.

    The points are the mean face's, where alignment puts them, so that every cut is known.
    """

    def write(
        folder: Path, count: int, size: int = 64, face_type: FaceType = FaceType.HALF, seed: int = 0
    ) -> None:
        angle = np.linspace(np.pi, 0, 17)
        jaw = np.stack([0.5 + 0.5 * np.cos(angle), 0.35 + 0.6 * np.sin(angle)], -1)
        share = 1 - 2 * face_type.padding
        points = (np.concatenate([jaw, MEAN_FACE]) * share + face_type.padding) * size
        source = Source("clip.mp4", 0, 0, size, size, (0.0, 0.0, float(size), float(size)), points)
        pose = Pose(0.0, 0.0, 0.0)
        face = FaceData(face_type, size, points, source, pose, "mtcnn", "dlib68", 1.0)
        rng = np.random.default_rng(seed)
        for index in range(count):
            coarse = rng.integers(30, 226, (5, 5, 3)).astype(np.uint8)
            picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
            write_face(folder / f"{index:05d}_0.png", picture, face)

    return write


@pytest.fixture(scope="session")
def write_clip() -> Callable[..., None]:
    """write(path, images, **options): a clip of them (uint8 RGB), 25 frames a second."""

    def write(path: Path, images: list[np.ndarray], **options: str) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "18"} | options)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))

    return write


@pytest.fixture(scope="session")
def write_mask_model() -> Callable[[Path], None]:
    """write(folder): a mask network's folder with one checkpoint; it is not trained."""

    def write(folder: Path) -> None:
        small = {"resolution": 32, "face_type": "full", "args": {"levels": [8, 8]}}
        network = {"name": "facemask", "net": "mask_unet"}
        model = OmegaConf.merge(OmegaConf.structured(ModelConfig), network, small)
        net = build_mask_net(OmegaConf.to_container(model))
        params = net.init(jax.random.key(0), *net.blank())["params"]
        checkpoints, config = Checkpoints(folder), {"model": OmegaConf.to_container(model)}
        checkpoints.save(1, {"nets": {MASK_NET: {"params": params}}}, config, {}, History())
        checkpoints.finish()
        checkpoints.close()
        OmegaConf.save(OmegaConf.create({"model": model}), folder / "config.yaml")

    return write


@pytest.fixture(scope="session")
def actor_faces() -> dict[str, tuple[np.ndarray, FaceData]]:
    """(picture, data) of aligned faces of the synthetic actors, by frame, from exact points."""
    data = Path(__file__).parent / "extraction" / "data"
    faces = {}
    for name, truth in json.loads((data / "truth.json").read_text()).items():
        frame = cv2.imread(str(data / name))[..., ::-1]
        points = np.array(truth["landmarks"])
        matrix = alignment_matrix(points, FaceType.FULL, 128)
        rect = (*points.min(0).tolist(), *points.max(0).tolist())
        source = Source(name, 0, None, *frame.shape[1::-1], rect, points)
        aligned, pose = transform(matrix, points), Pose(*truth["pose"])
        face = FaceData(FaceType.FULL, 128, aligned, source, pose, "exact", "exact", 1.0)
        faces[Path(name).stem] = crop_face(frame, matrix, 128), face
    return faces
