# Everything runs in .venv; nothing else is needed than Python 3.11 and make.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO := demo-output

.PHONY: demo test lint bench faults clean

demo: $(VENV)/run.stamp
	$(BIN)/warpbeam demo $(DEMO)

test: lint
	$(BIN)/python -m pytest --numprocesses 2

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy kernels transforms pipelines

# Measurements of the README's tables; minutes to an hour on two cores.
bench: $(VENV)/test.stamp
	$(BIN)/python tests/benchmarks/run_all.py

# Kills and restarts a run many times, and compares the bytes.
faults: $(VENV)/test.stamp
	for job in fuse stitch align register segment pieces plate growing; do $(BIN)/python tests/faults/kill_campaign.py --kills 20 --job $$job || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: setup.py constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

$(VENV)/test.stamp: setup.py constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .[test]
	touch $@ $(VENV)/run.stamp

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
