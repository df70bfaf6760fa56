"""What installs and packages the program: the files agree, and the prebuilt program works."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_the_page_names_every_extra_of_users():
    page = (ROOT / "docs" / "install.md").read_text()
    table = page.split("## Extras")[1].split("\n## ")[0]
    named = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line[:22])}
    assert named == EXTRAS.keys() - {"test", "bench"}


def test_the_image_installs_extras_that_there_are():
    lines = (ROOT / "Dockerfile").read_text()
    offered = re.findall(r"EXTRA=(\w+)", lines)
    installed = re.search(r'"\.\[(.*),\$EXTRA\]"', lines)[1].split(",")
    assert len(offered) == 2 and {*offered, *installed} <= EXTRAS.keys()


def test_the_workflow_and_the_container_run_what_make_has():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "binary.yml").read_text())
    job = workflow["jobs"]["build"]
    for row in job["strategy"]["matrix"]["include"]:
        assert "cuda" not in row or f"cuda{row['cuda']}" in EXTRAS
    commands = " ".join(step.get("run", "") for step in job["steps"])
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    for target in re.findall(r"make (\S+)", f"{commands} {container['postCreateCommand']}"):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
    for script in re.findall(r"packaging/\w+\.sh", commands):
        assert os.access(ROOT / script, os.X_OK)


def test_every_library_that_is_installed_has_its_tested_version():
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for requirement in (r for group in [PROJECT["dependencies"], *EXTRAS.values()] for r in group):
        name = re.match(r"[\w.-]+", requirement)[0].lower()
        unpinned = {"odfs-jax", "face-alignment", "torch"}  # ours; only by hand
        assert name in unpinned or re.search(rf"^{name}==", pinned, re.M), name


@pytest.mark.slow
def test_the_prebuilt_program_does_its_work_without_python(tmp_path):
    """About a quarter of an hour, most of it PyInstaller's."""
    subprocess.run(["make", "binary"], cwd=ROOT, check=True)
    program = ROOT / "dist" / "odfs" / "odfs"
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [ROOT / "packaging" / "try_binary.sh", program, ROOT / "assets" / "demo", tmp_path]
    subprocess.run(command, env=home, check=True, timeout=1800)
