# Every target keeps its environment in .venv here, with the versions of constraints.txt. Needs make and Python >= 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
FILE ?=
OUT ?=
TEST_PROCESSES ?= 2

# Two threads on small matrices are slower than one; the work is spread over processes instead.
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help sweep explore figures screenshot docs test test-peers bench clean
.SECONDARY:
.DELETE_ON_ERROR:

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

sweep: $(VENV)/.core ## Bias and variance of every correction, to results/default (FILE=settings.toml, OUT=folder)
	$(BIN)/testbed sweep $(FILE) $(if $(OUT),--out $(OUT))

explore: $(VENV)/.explore ## A page in the browser with the exact numbers under its controls
	$(BIN)/testbed explore

figures: results/default/table.parquet ## Draw every figure from the results of the sweep, and the gallery, docs/figures
	$(BIN)/python -m figures --gallery docs/figures

screenshot: $(VENV)/.test ## The picture of testbed explore in README.md; needs chromium
	$(BIN)/python docs/screenshot.py

results/default/table.parquet: $(VENV)/.core
	test -f $@ || $(BIN)/testbed sweep

docs: $(VENV)/.docs ## The documentation, with warnings as errors; docs/cards.md and docs/claims.md are written first
	$(BIN)/testbed list --markdown > docs/cards.md.part
	mv docs/cards.md.part docs/cards.md
	$(BIN)/testbed verify --out docs/_build/ledger > docs/_build/verify.txt
	cp docs/_build/ledger/ledger.md docs/claims.md
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html is the first page"

test: $(VENV)/.test ## Lint, types and tests; installs PyTorch and the test tools first
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n $(TEST_PROCESSES)

# TRL, verl and torchrl need different versions of the same packages, so that each gets an environment of its own.
PEERS := trl verl torchrl

test-peers: $(PEERS:%=test-peer-%) ## The presets against the live code of TRL, verl and torchrl (installs them first)

test-peer-%: .venv-%/.peer
	.venv-$*/bin/python -m pytest -p no:cacheprovider -W ignore tests/peers/live/test_$*.py

.venv-%/.peer: pyproject.toml constraints.txt tests/peers/live/constraints-verl.txt
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		$(if $(filter verl,$*),-c tests/peers/live/constraints-verl.txt) -e '.[torch,$*]' pytest hypothesis
	@touch $@

bench: $(VENV)/.test ## Speed of the engines and of a training step, beside twins, TRL and the arithmetic floor
	$(BIN)/python -m benchmarks

clean: ## Remove the environment and caches; results stay
	rm -rf $(VENV) $(PEERS:%=.venv-%) docs/_build docs/reference docs/course build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; pass PYTHON=..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/.explore: $(VENV)/.core
	$(PIP) -e '.[explore]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(PIP) -e '.[docs]'
	mkdir -p docs/_build
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) -e '.[test]'
	@touch $@
