SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test prove chaos lint bench kafka locks clean

PYTHON ?= python3
BROKER ?= local
VENV ?= .venv
DEMO_VENV ?= .streampipe/venv
ARGS ?=

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: $(VENV)/.installed ## Install everything for development into .venv

demo: $(DEMO_VENV)/.installed ## Run the demo on the embedded log; BROKER=kafka: on a real Apache Kafka
	$(DEMO_VENV)/bin/python -m demo --broker $(BROKER) $(ARGS)

test: setup ## Run the tests; those on Kafka and a registry where Java and Maven are found
	$(VENV)/bin/pytest $(ARGS)

prove: setup ## Put the laws to the test with fifty times as many examples as `make test`
	STREAMPIPE_PROVE=1 $(VENV)/bin/pytest -m proof --timeout=0 $(ARGS)

chaos: setup ## Kill, freeze and stop workers and a real Kafka under a million records; half an hour
	$(VENV)/bin/python -m tests.chaos $(ARGS)

lint: setup ## Check style, formatting, types and layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: setup ## Measure against a hand-written loop on a real Apache Kafka; without ARGS, what state costs as well
	$(VENV)/bin/python -m benchmarks $(ARGS)
	$(if $(ARGS),,$(VENV)/bin/python -m benchmarks.state)

kafka: setup ## Start a real Apache Kafka and schema registry to play with, until Ctrl-C
	$(VENV)/bin/python -m streampipe.testing.stack $(ARGS)

locks: setup ## Resolve requirements.lock and requirements-dev.lock again from pyproject.toml
	$(VENV)/bin/uv pip compile $(LOCK) pyproject.toml -o requirements.lock
	$(VENV)/bin/uv pip compile $(LOCK) pyproject.toml --extra dev --extra rocksdb -o requirements-dev.lock

clean: ## Delete what was built and what the embedded log holds; leaves .venv
	rm -rf .streampipe build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

# The locks pin every package by hash. The stamp is written last: an interrupted install starts again.
$(VENV)/.installed: requirements-dev.lock pyproject.toml
	@echo "Installing what requirements-dev.lock pins into $(VENV), once ..."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(DEMO_VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing what requirements.lock pins into $(DEMO_VENV), once ..."
	@$(PYTHON) -m venv $(DEMO_VENV)
	@$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
