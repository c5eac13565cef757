# Two commands do everything: `make digits` trains and judges a model, `make test` runs the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: digits results benchmarks test test-peers lint format clean

digits: $(VENV)/installed
	$(BIN)/python main.py --config configs/digits.py --workdir runs/digits

# Every method under one budget into docs/results.md; runs that are done are skipped. JOBS=2 trains two at a time.
JOBS ?= 1
results: $(VENV)/installed
	$(BIN)/python -m benchmarks.results --jobs $(JOBS)

# Speed and memory into runs/benchmarks (benchmarks/README.md says of what); SIZE=--published takes the papers' networks, for an accelerator.
benchmarks: $(VENV)/installed
	$(BIN)/python -m benchmarks.everything $(SIZE)

test: $(VENV)/installed
	$(BIN)/python -m pytest -q --numprocesses=auto --dist=loadfile --no-loadscope-reorder --durations=30

# Our networks beside those of other libraries, live and with the same random weights, in an environment of its own.
PEERS := .peers
test-peers: $(PEERS)/installed
	$(PEERS)/bin/python -m pytest -q -rP --override-ini python_files='peer_*.py' --override-ini filterwarnings=default tests/peers

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Everything a checkout needs, at the versions of constraints.txt; installed again when either file changes. The TPU
# compiler lies beside the environment, since JAX would look for a TPU in every process; main.py is told of it by PYTHONPATH.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fewstep needs Python 3.11 or newer, this is %s" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,data,eval,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --upgrade --target $(VENV)/libtpu libtpu
	touch $@

# PyTorch comes first and by its version: the others would bring in another one, with CUDA, had they their way.
PEERS_PIP := $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check
$(PEERS)/installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(PEERS)
	$(PEERS_PIP) torch==2.13.0
	$(PEERS_PIP) 'numpy<3' 'scipy<1.18' pillow tqdm requests safetensors
	$(PEERS_PIP) --no-deps torchvision==0.28.0
	$(PEERS_PIP) --no-deps pytorch-fid==0.3.0 torch-fidelity==0.4.0 clean-fid==0.1.35 lpips==0.1.4 timm==1.0.31
	$(PEERS_PIP) diffusers==0.42.1 transformers==5.23.0 matplotlib einops click psutil
	$(PEERS_PIP) --constraint constraints.txt --editable '.[train,eval]' beartype pytest
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
