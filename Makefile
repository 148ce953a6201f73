# demo: the main job on this machine alone.   test: all that must hold, in about five minutes.
# interop: the same against other servers.    soak: the long counts.    bench: side by side with the peers.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(CURDIR)/.tools/bin
WORKERS ?= 2

# Some machines point every botocore at a certificate bundle of their own.
unexport AWS_CA_BUNDLE
export PYTHON

PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: help demo test interop soak bench lint format packages servers tools clean

help:
	@sed -n '1,2s/^# //p' Makefile

demo: $(VENV)/.run
	$(BIN)/replicator demo

test: $(VENV)/.test packages
	$(PYTEST) -m "not interop and not soak"

interop: $(VENV)/.test packages servers
	PATH="$(TOOLS):$$PATH" $(PYTEST) -m interop

soak: $(VENV)/.test packages
	$(PYTEST) -m soak --timeout=1200
	scripts/fuzz-api

# make bench only=NAME repeat=N
bench: $(VENV)/.test packages tools
	$(BIN)/python -m bench.run $(if $(only),--only $(only)) $(if $(repeat),--repeat $(repeat))

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

packages:
	@scripts/packages

servers:
	@scripts/tools servers

tools:
	@scripts/tools servers peers

clean:
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/results

# One environment, grown by what each command needs; made anew when the dependencies change.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[uvloop]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,uvloop]'
	@touch $@

$(VENV)/.lint: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,uvloop,lint]'
	@touch $@
