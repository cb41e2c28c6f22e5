# `make run` starts the daemon, `make test` checks everything. Both need nothing but python3.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
COMPOSE ?= compose.toml
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST ?= $(BIN)/pytest

SECONDS ?= 60

.PHONY: help run test test-slow fuzz fault-matrix bench lint format protos manual clean packages
.DELETE_ON_ERROR:

help:
	@echo "make run        start the daemon on $(COMPOSE)"
	@echo "make test       check style, types, layers, and run the tests"
	@echo "make test-slow  run the tests that take long"
	@echo "make fuzz       fuzz the parsers, guided by coverage: [TARGET=narinfo] [SECONDS=60] for each"
	@echo "make fault-matrix  what becomes of each fault of a substituter; writes docs/resilience.md"
	@echo "make lint       check style, types and layers only"
	@echo "make protos     generate tvixstore/proto from protos again"
	@echo "make manual     make share again: the man pages and completion, from the command line and docs"
	@echo "make bench      measure; see docs/performance.md"
	@echo "make clean      remove what the above made, the state apart"

run: $(VENV)/installed
	exec $(BIN)/tvix-store daemon --compose $(COMPOSE)

# A file of tests stays in one process: what its fixtures share is made once.
test: packages lint
	$(PYTEST) -m "not slow" --numprocesses auto --dist loadfile $(ARGS)

test-slow: packages $(VENV)/installed-for-tests
	$(PYTEST) -m slow --timeout 1800 --numprocesses auto --dist loadfile $(ARGS)

fuzz: $(VENV)/installed-for-fuzzing
	$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(SECONDS)

fault-matrix: packages $(VENV)/installed-for-tests
	$(BIN)/python -m tests.faults

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

format: $(VENV)/installed-for-tests
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: packages $(VENV)/installed-for-tests
	$(BIN)/python -m bench $(ARGS)

protos: $(VENV)/installed-for-tests
	$(BIN)/python protos/generate.py tvixstore/proto

manual: $(VENV)/installed-for-tests
	$(BIN)/python -m manual share

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .fuzz
	find . -name __pycache__ -prune -exec rm -rf {} +

# The package is installed as a link to this folder: what is edited here runs.
$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-for-tests: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-for-fuzzing: $(VENV)/installed-for-tests
	$(PIP) install --editable '.[test,fuzz]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than 3.11: name a newer one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make virtual environments: install its package python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The tests drive the real Nix client, hold the units against systemd, and have shells complete.
packages:
	@missing=; \
	command -v nix-store >/dev/null || missing="$$missing nix-bin"; \
	command -v systemd-analyze >/dev/null && command -v systemd-socket-activate >/dev/null || \
	  missing="$$missing systemd"; \
	for program in mandoc fish zsh; do \
	  command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; \
	command -v groff >/dev/null || missing="$$missing groff-base"; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" = 0 ]; then as_root=; \
	elif sudo -n true 2>/dev/null; then as_root=sudo; \
	else echo "make: the tests need$$missing, which only root may install" >&2; exit 1; fi; \
	command -v apt-get >/dev/null || \
	  { echo "make: the tests need on the PATH what Debian has in:$$missing" >&2; exit 1; }; \
	$$as_root apt-get update --quiet --quiet && \
	DEBIAN_FRONTEND=noninteractive $$as_root apt-get install --quiet --quiet --yes --no-install-recommends $$missing
