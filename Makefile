# Two commands do everything: `make digits` trains and judges a model, `make test` runs the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: digits results test lint format clean

digits: $(VENV)/installed
	$(BIN)/python main.py --config configs/digits.py --workdir runs/digits

# Every method under one budget into docs/results.md; runs that are done are skipped. JOBS=2 trains two at a time.
JOBS ?= 1
results: $(VENV)/installed
	$(BIN)/python -m benchmarks.results --jobs $(JOBS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -q --numprocesses=auto --durations=10

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Everything a checkout needs, at the versions of constraints.txt; installed again when either file changes.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fewstep needs Python 3.11 or newer, this is %s" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,data,eval,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
