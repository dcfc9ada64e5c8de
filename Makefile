# Two commands do all the set-up and the work: `make demo` and `make test`. `make` alone lists the others.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .cache/uv/bin/uv
READY := $(VENV)/.ready
DEMO ?= demo
CLIPS ?= 240

# Prefect's telemetry prints an error on a closed network, and tokenizers would start threads beside the worker processes.
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export TOKENIZERS_PARALLELISM := false
ifndef MIAR_MODEL_DIR
ifneq ($(wildcard ../shared/models/.),)
export MIAR_MODEL_DIR := $(abspath ../shared/models)
endif
endif

.PHONY: help setup demo test test-all check format bench docs deploy lock clean

help:  ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|' | sed 's/^/  make /'

setup: $(READY)  ## Make .venv with the locked environment

demo: $(READY)  ## Make a corpus, extract, train, score, report: one command from raw video to scores (CLIPS=240 DEMO=demo)
	$(BIN)/miar demo --clips $(CLIPS) --out $(DEMO)

test: $(READY)  ## Run the tests (under 12 minutes on 2 cores)
	$(BIN)/pytest -m "not slow" -n 3 --dist loadgroup

test-all: $(READY)  ## Run every test, the slow ones too
	$(BIN)/pytest -n 3 --dist loadgroup

check: $(READY)  ## Lint, format, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY)  ## Put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## Run the benchmarks; each prints ratios taken in one run
	$(BIN)/python -m benchmarks

docs: $(READY)  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet
	@echo "documentation: site/index.html"

deploy: $(READY)  ## Create work pools and deployments on the current Prefect server; can be repeated
	$(BIN)/python -m flows.deploy

lock: $(UV)  ## Resolve requirements.lock anew from pyproject.toml
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet \
	  --extra demo --extra dev pyproject.toml --output-file requirements.lock

clean:  ## Remove the environment, caches and the demo
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache site $(DEMO)

$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, this is {v.major}.{v.minor}; name another one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/pip install --quiet --disable-pip-version-check uv

$(READY): $(UV) requirements.lock pyproject.toml
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
