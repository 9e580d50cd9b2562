VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
DATA ?=
WORKERS ?= 3
DURATION ?= 600
SEED ?=
PYTEST := -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test check coverage chaos bench format lock clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

$(PEERS): $(READY) requirements-bench.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $(PEERS)

demo: $(READY)  ## run the main job on local servers; DATA=path imports that file instead
	$(BIN)/convostore demo $(if $(DATA),--data "$(DATA)")

test: $(READY)  ## run all tests on real local servers
	$(BIN)/python $(PYTEST) $(ARGS)

check: $(READY)  ## lint, type-check and run the same tests
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python $(PYTEST) $(ARGS)

coverage: $(READY)  ## run the tests with branch coverage, which takes a quarter more time
	$(BIN)/python $(PYTEST) --cov --cov-report=term-missing:skip-covered $(ARGS)

chaos: $(READY)  ## break servers for DURATION seconds, by a SEED, while many write and read
	CHAOS_DURATION=$(DURATION) CHAOS_SEED=$(SEED) $(BIN)/python -m pytest tests/chaos/test_chaos.py -q $(ARGS)

bench: $(PEERS)  ## measure against the raw drivers and peers, interleaved, as ratios
	$(BIN)/python -m benchmarks $(ARGS)

format: $(READY)  ## format and mend what can be mended
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

lock:  ## pin all dependencies with hashes, without addresses (needs uv)
	uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra local --extra dev \
		--generate-hashes --no-strip-extras --no-emit-index-url --no-annotate --no-header --upgrade -o requirements.lock
	uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra local --extra dev --extra bench \
		--generate-hashes --no-strip-extras --no-emit-index-url --no-annotate --no-header -c requirements.lock -o requirements-bench.lock

clean:  ## remove what the targets made
	rm -rf $(VENV) build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
