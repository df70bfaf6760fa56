# make demo: two clips in, a swapped clip and its score out (workspace/demo)
# make test, make lint. Each first installs what it needs into .venv, once.
# make binary: dist/odfs/, a program that needs no Python (docs/install.md)
# CUDA=1 or CUDA=12 with any of them installs JAX for NVIDIA cards: CUDA 13, or 12 for older drivers.
# ARGS= is passed on: make demo ARGS="iterations=500", make test ARGS="-k video".

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
COMMA := ,
EXTRA := $(if $(CUDA),$(COMMA)cuda$(if $(filter 12,$(CUDA)),12,13))
STAMP := $(VENV)/installed$(EXTRA:$(COMMA)%=-%)
SUPPORTED := import sys; (3, 11) <= sys.version_info[:2] < (3, 14) or sys.exit(f"$(PYTHON) is Python {sys.version.split()[0]}; odfs-jax needs 3.11, 3.12 or 3.13; try: make PYTHON=python3.12")

.PHONY: demo test lint binary

demo: $(STAMP)
	$(RUN) scripts/demo.py $(ARGS)

test: $(STAMP)
	$(RUN) -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/shellcheck .ci/run packaging/*.sh

# In an environment of its own: what is installed in it goes into the program. OpenCV without
# windows, which needs no libGL and no X11.
binary: build/venv/bin/python
	$< -m pip install --constraint constraints.txt ".[binary$(EXTRA)]"
	$< -m pip uninstall --yes opencv-python
	$< -m pip install --constraint constraints.txt --force-reinstall --no-deps opencv-python-headless
	$< -m PyInstaller --noconfirm --distpath dist --workpath build packaging/odfs.spec
	dist/odfs/odfs --version

$(STAMP): pyproject.toml constraints.txt | $(RUN)
	$(RUN) -m pip install --constraint constraints.txt --editable ".[test$(EXTRA)]"
	@touch $@

$(RUN) build/venv/bin/python:
	@$(PYTHON) -c '$(SUPPORTED)'
	$(PYTHON) -m venv $(@:/bin/python=) || { rm -rf $(@:/bin/python=); exit 1; }
