# demo: the main job, on this machine alone.      test: everything that must pass, in about five minutes.
# interop: the same against more servers.         soak: the long tests.      bench: figures beside the peers.
# mutants: what the tests would not notice.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
TOOLS := $(CURDIR)/.tools/bin
WORKERS ?= 2

# Some machines point every botocore at a certificate bundle of their own.
unexport AWS_CA_BUNDLE
export PYTHON

# Tests that wait take most of the time: whoever has none left takes some of the others.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help demo demo-fleet test coverage interop policies soak mutants bench lint docs format reference screenshots man locks package release packages compiled servers tools clean

help:
	@sed -n '1,3s/^# //p' Makefile

demo: $(VENV)/.run
	$(BIN)/replicator demo

# Three agents that share PostgreSQL and two registries; one is killed on stage.
demo-fleet: $(VENV)/.test
	$(BIN)/python -m scripts.demo_fleet

test: $(VENV)/.test packages compiled
	$(PYTEST) -m "not interop and not soak"

# The tests that run inside their own process, measured with branches, against the floor in pyproject.toml. Measuring
# takes half as long again, so `make test` goes without.
coverage: $(VENV)/.lint compiled
	$(PYTEST) -m "not interop and not soak" --cov=replicator --cov-report=term tests/unit tests/lists tests/conformance tests/engine tests/fleet tests/hostile tests/protocol \
		--ignore=tests/fleet/test_fleet_processes.py --ignore=tests/fleet/test_fleet_people.py

interop: $(VENV)/.test packages servers package compiled
	PATH="$(TOOLS):$$PATH" $(PYTEST) -m "interop and not policies and not soak"

# What Kyverno and policy-controller make of the policies that we print; ten minutes to build them, the first time.
policies: $(VENV)/.test packages servers
	@scripts/tools policies
	PATH="$(TOOLS):$$PATH" $(BIN)/python -m pytest -m policies

soak: $(VENV)/.test packages compiled
	$(PYTEST) -m soak --timeout=1200
	scripts/fuzz-api

# Mutation tests, about an hour. make mutants only='replicator.state.merge.*'; docs/mutants.md
mutants: $(VENV)/.test
	@scripts/mutants $(if $(only),'$(only)')

# make bench only=NAME repeat=N
bench: $(VENV)/.test packages tools
	$(BIN)/python -m bench.run $(if $(only),--only $(only)) $(if $(repeat),--repeat $(repeat))

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the documentation as a site, in build/site; fails for links that lead nowhere
docs: $(VENV)/.docs
	$(BIN)/python -m scripts.site

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# docs/configuration.md, from the model of the config; docs/registries/README.md, from what is known of vendors; and the
# rules for the Prometheus operator, from grafana/
reference: $(VENV)/.run
	$(BIN)/python -m scripts.reference > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
	$(BIN)/python -m scripts.registries > docs/registries/README.md.new
	mv docs/registries/README.md.new docs/registries/README.md
	$(BIN)/python -m scripts.prometheus_rule > deploy/kubernetes/components/monitoring/prometheusrule.yaml

# docs/images: pages of an agent in Chromium, and what `demo` prints
screenshots: $(VENV)/.run packages
	$(BIN)/python -m scripts.screenshots

# man pages of all commands, from their own help, in build/man; what completes them in shells, in build/completions
man: $(VENV)/.run
	rm -rf build/man build/completions
	$(BIN)/python -m scripts.man_pages build/man
	mkdir -p build/completions
	for shell in bash zsh fish; do $(BIN)/replicator completion $$shell > build/completions/replicator.$$shell; done

# dist/: wheel, source archive, .deb and .rpm; make package arch=arm64
package: man .tools/release/.installed
	@scripts/tools packaging
	.tools/release/bin/python -m scripts.package $(if $(arch),--architecture $(arch))

# requirements/*.lock, from pyproject.toml; make locks upgrade=1 takes the newest versions
locks:
	@scripts/locks $(if $(upgrade),--upgrade)

# make release version=X prepares the commit; make release signs its tag and fills dist/ with packages, notes, SBOM, provenance
# and checksums; make release rehearse=1 builds any commit. docs/releasing.md
release: man .tools/release/.installed
	@scripts/tools packaging
	.tools/release/bin/python -m scripts.release $(if $(version),--prepare $(version)) $(if $(rehearse),--rehearse)

.tools/release/.installed: requirements/release.lock
	@$(PYTHON) -m venv .tools/release
	@.tools/release/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/release.lock
	@touch $@

# Else each program that a test starts compiles the package anew where PYTHONDONTWRITEBYTECODE is set.
compiled: $(VENV)/bin/python
	@$(BIN)/python -m compileall -q replicator

packages:
	@scripts/packages

servers:
	@scripts/tools servers

tools:
	@scripts/tools servers link

clean:
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/results

# One environment, which grows with what each command needs and is updated when pyproject.toml changes.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is required: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }

# The first pip that reads dependency groups.
$(VENV)/.pip: | $(VENV)/bin/python
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.run: pyproject.toml | $(VENV)/.pip
	$(PIP) install -e '.[uvloop]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.pip
	$(PIP) install -e '.[uvloop]' --group test
	@touch $@

$(VENV)/.lint: pyproject.toml | $(VENV)/.pip
	$(PIP) install -e '.[uvloop]' --group dev
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.pip
	$(PIP) install --group docs
	@touch $@
