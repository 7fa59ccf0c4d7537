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
.PHONY: help sweep figures test bench clean
.DELETE_ON_ERROR:

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

sweep: $(VENV)/.core ## Bias and variance of every correction, to results/default (FILE=settings.toml, OUT=folder)
	$(BIN)/testbed sweep $(FILE) $(if $(OUT),--out $(OUT))

figures: $(VENV)/.core ## Draw every figure from the results of the sweep
	$(BIN)/python -m figures

test: $(VENV)/.test ## Lint, types and tests; installs PyTorch and the test tools first
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n $(TEST_PROCESSES)

bench: $(VENV)/.core ## Speed of the engines, each beside its plain twin
	$(BIN)/python -m benchmarks

clean: ## Remove the environment and caches; results stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; pass PYTHON=..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) -e '.[test]'
	@touch $@
