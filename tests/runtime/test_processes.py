"""Nothing that lies in the current folder, perhaps a stranger's workspace, is run or read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import odfs_jax

# Modules that a child process imports early, of Python itself and of others; c2pa's library.
PLANTED = ("yaml", "pickle", "hydra", "multiprocessing", "numpy", "omegaconf", "cv2", "odfs_jax")
MODULE = "import os\nopen(os.environ['RAN'], 'a').write(__name__ + ' ')\nraise SystemExit(3)\n"


@pytest.fixture
def run(tmp_path):
    """run(program) runs it in a folder full of traps; returns the names of those that ran."""
    folder, ran = tmp_path / "workspace", tmp_path / "ran"
    folder.mkdir()
    ran.write_text("")
    for name in PLANTED:
        (folder / f"{name}.py").write_text(MODULE)
    (folder / "libc2pa_c.so").write_text("a library that cannot be loaded")
    (folder / ".nicegui").mkdir()
    os.mkfifo(folder / ".nicegui" / "storage-general.json")

    def run(program: str) -> str:
        environment = os.environ | {"RAN": str(ran), "PATH": os.defpath}
        environment.pop("PYTHONSAFEPATH", None)
        script = tmp_path / "script.py"
        script.write_text(program)
        command = [sys.executable, str(script)]
        subprocess.run(command, cwd=folder, env=environment, timeout=120, check=True)
        return ran.read_text()

    return run


def test_commands_of_the_studio(run):
    program = """
import time
from pathlib import Path
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.workspace import StudioWorkspace
jobs = Jobs(StudioWorkspace(Path(".")))
jobs.start("sort", "sort", {"data": "src", "by": "blur", "hardware.devices": "cpu"})
while jobs.find("sort").running:
    time.sleep(0.05)
assert jobs.find("sort").code == 2, jobs.find("sort")
"""
    assert run(program) == ""


def test_pools_of_processes(run):
    program = """
import os
from concurrent.futures import ProcessPoolExecutor
from odfs_jax.runtime.processes import spawn_context
if __name__ == "__main__":
    with ProcessPoolExecutor(1, spawn_context()) as pool:
        assert pool.submit(os.getpid).result(100) != os.getpid()
"""
    assert run(program) == ""


def test_the_window_and_whatever_a_command_starts(run):
    program = """
import subprocess, sys
from pathlib import Path
from odfs_jax.training.control import preview_window
from odfs_jax.runtime.processes import keep_current_folder_out
with preview_window(Path("."), "window"):
    import time
    time.sleep(1)
keep_current_folder_out()  # as every command does
assert subprocess.run([sys.executable, "-c", "import yaml"]).returncode == 0
"""
    assert run(program) == ""


@pytest.mark.slow
def test_the_library_of_c2pa_and_the_store_of_nicegui(run):
    program = """
import logging
logging.basicConfig(level=logging.ERROR)
errors = []
logging.getLogger("c2pa").addFilter(lambda record: errors.append(record))
from odfs_jax.provenance import signing
assert not errors, errors  # it tried the file in the folder
from pathlib import Path
from odfs_jax.studio import server
from odfs_jax.studio.workspace import StudioWorkspace
try:
    where = {"host": "256.0.0.0", "port": 0, "token": None, "token_file": None}
    server.serve(StudioWorkspace(Path(".")), {"server": where}, "/")
except server.UserError:
    pass  # the host; by then NiceGUI is imported
import sys
assert "nicegui" in sys.modules
"""
    assert run(program) == ""


def test_no_pool_of_processes_is_made_another_way():
    package = Path(odfs_jax.__file__).parent
    for path in package.rglob("*.py"):
        if path.name != "processes.py":
            made = re.findall(
                r"get_context\(|\[sys\.executable|os\.system|shell=True", path.read_text()
            )
            assert not made, path
