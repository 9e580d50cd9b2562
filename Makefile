VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check bench format lock clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY)  ## run the main job on local servers; DATA=path imports that file instead
	$(BIN)/convostore demo $(if $(DATA),--data "$(DATA)")

test: $(READY)  ## run all tests on real local servers
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)  ## lint, type-check and run the same tests, with branch coverage
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report

bench: $(READY)  ## measure against the raw driver, interleaved, as ratios
	$(BIN)/python -m benchmarks $(ARGS)

format: $(READY)  ## format and mend what can be mended
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

lock:  ## pin all dependencies with hashes, without addresses (needs uv)
	uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra local --extra dev \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade -o requirements.lock

clean:  ## remove what the targets made
	rm -rf $(VENV) build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
