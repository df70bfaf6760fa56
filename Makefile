# make demo: two clips in, a swapped clip and its score out (workspace/demo)
# make test, make lint. Each first installs what it needs into .venv, once.
# ARGS= is passed on: make demo ARGS="iterations=500", make test ARGS="-k video".

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/installed
SUPPORTED := import sys; (3, 11) <= sys.version_info[:2] < (3, 14) or sys.exit(f"$(PYTHON) is Python {sys.version.split()[0]}; odfs-jax needs 3.11, 3.12 or 3.13; try: make PYTHON=python3.12")

.PHONY: demo test lint

demo: $(STAMP)
	$(RUN) scripts/demo.py $(ARGS)

test: $(STAMP)
	$(RUN) -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

$(STAMP): pyproject.toml constraints.txt | $(RUN)
	$(RUN) -m pip install --constraint constraints.txt --editable ".[test]"
	@touch $@

$(RUN):
	@$(PYTHON) -c '$(SUPPORTED)'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
