"""The process that does the heavy work: its results, its errors, its end."""

import os
import signal

import psutil
import pytest
from studios import PATIENCE, wait_for

from odfs_jax.curation.measures import sharpness
from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.studio.worker import Worker, contact_sheets, read_poses, sorted_faces

CPU = {
    "devices": "cpu", "multi_gpu": False, "memory_gb": None, "compilation_cache": None,
    "coordinator": None, "num_processes": None, "process_id": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def worker():
    worker = Worker(CPU, "--xla_backend_optimization_level=0")
    yield worker
    worker.close()


def test_it_is_another_process_with_flags_of_its_own(worker):
    assert worker.submit(os.getpid).result(PATIENCE) != os.getpid()
    flags = worker.submit(os.getenv, "XLA_FLAGS").result(PATIENCE)
    assert flags.endswith("--xla_backend_optimization_level=0")
    assert "optimization_level=0" not in os.environ["XLA_FLAGS"]


def test_users_errors_come_back_as_they_are(worker, tmp_path):
    with pytest.raises(UserError, match="none/aligned: "):
        worker.submit(sorted_faces, tmp_path / "none" / "aligned", "src", "blur").result(PATIENCE)
    (tmp_path / "bad.png").write_bytes(b"no face")
    with pytest.raises(BadFileError) as error:
        worker.submit(read_face, tmp_path / "bad.png").result(PATIENCE)
    assert error.value.path == tmp_path / "bad.png" and "bad.png: " in str(error.value)


def test_it_is_started_again_after_it_was_killed(worker):
    first = worker.submit(os.getpid).result(PATIENCE)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(first))
    again = []

    def answers():
        try:
            again.append(worker.submit(os.getpid).result(PATIENCE))
        except RuntimeError:  # what was under way is lost
            return False
        return True

    wait_for(answers)
    assert again[0] != first


def test_it_ends_when_it_is_closed():
    worker = Worker(CPU)
    process = psutil.Process(worker.submit(os.getpid).result(PATIENCE))
    worker.close()
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_faces_in_order_before_the_files_that_are_none(tmp_path, write_faceset):
    write_faceset(tmp_path / "aligned", 3, size=32)
    (tmp_path / "aligned" / "bad.png").write_bytes(b"no face")
    found = sorted_faces(tmp_path / "aligned", "src", "origname")
    names = [f"0000{i}_0.png" for i in range(3)]
    assert found == {"names": [*names, "bad.png"], "values": None, "groups": None}
    found = sorted_faces(tmp_path / "aligned", "src", "hist_blur")
    assert sorted(found["names"][:3]) == names and found["groups"] == [0, 0, 0]
    exact = [
        sharpness(read_image_and_face(tmp_path / "aligned" / n)[0]) for n in found["names"][:3]
    ]
    assert found["values"] == pytest.approx(exact, abs=1e-4) and exact == sorted(exact)[::-1]
    sheet = contact_sheets(tmp_path / "aligned", "src", "origname")
    assert sheet.startswith(b"\x89PNG")
    rows = read_poses(sorted((tmp_path / "aligned").glob("*.png")))
    assert rows == [(0.0, 0.0, 1.0, 0)] * 3 + [None]
