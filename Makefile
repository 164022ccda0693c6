# `make help` lists the targets. `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
TORCH := 2.13.0
GROWTH := --rounds 1 --steps 2 --batch 4 --tuning lora --method npo default --csv benchmarks/results/growth.csv
# Tests run in a process a core, each on one thread; eight take some ten gigabytes.
WORKERS := $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 8 ? cores : 8)))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup weights demo test test-slow bench lint format types check clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv with torch, Letheon and all that its tests need (once)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or later is needed; name one with: make setup PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "python3 cannot make a virtual environment; on Debian or Ubuntu: sudo apt-get install python3-venv python3-pip" >&2; exit 2; }
	@# A CPU build is a tenth of the download; not every package index offers one.
	@if command -v nvidia-smi >/dev/null; then $(BIN)/pip install -q torch==$(TORCH); else \
		$(BIN)/pip install -q torch==$(TORCH)+cpu 2>/dev/null || $(BIN)/pip install -q torch==$(TORCH); fi
	$(BIN)/pip install -q -e '.[dev]'
	@touch $@

weights: setup  ## Fetch the demo's model (90 MB, once; hash-checked)
	$(BIN)/python -m letheon.demo.weights

demo: setup  ## Run the whole story on a small real model; options in ARGS, e.g. ARGS="--tuning full --seed 1"
	$(BIN)/letheon demo $(ARGS)

test: setup  ## Run the tests, without the slow ones; options in ARGS, e.g. ARGS="-k stop"
	$(PYTEST) -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: setup  ## Run the tests that need the real demo model or minutes
	$(PYTEST) -m slow $(ARGS)

bench: setup  ## Time steps against plain ones, and how cost grows with the log (two hours)
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/steps.py $(GROWTH) --words 0 100 300
	$(BIN)/python benchmarks/steps.py $(GROWTH) --batch 1 8 16
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/plots.py

lint: setup  ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## Format the code, and mend the style where that is safe
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## Check types
	$(BIN)/mypy

check: lint types test  ## All that must pass before a commit

clean:  ## Remove what was built; keeps .venv, runs and the cache of models
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
