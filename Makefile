# The one task file. `make` alone lists the tasks; each line with `##` is one.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
INIT   := init/build/traforo-init
BUNDLE := src/traforo/worker/bin/traforo-init
ARGS   ?=
T      ?= tests
# Processes that run tests.
JOBS   ?= 2
# Time for each fuzz target.
SECONDS_EACH ?= 20

# The stamp carries the directory, so that a copied or moved tree is set up again.
STAMPS      := $(VENV)/stamps$(CURDIR)
SETUP       := $(STAMPS)/setup
LOCK_SETUP  := $(STAMPS)/lock
BENCH_SETUP := $(STAMPS)/bench
ZIG_SETUP   := $(STAMPS)/zig
FUZZ_SETUP  := $(STAMPS)/fuzz

# A compiler named by the caller wins, then `cc`; a machine with neither gets one from a wheel, which links against musl.
COMPILER :=
ifeq ($(origin CC),default)
  ifeq ($(shell command -v cc),)
    COMPILER := $(ZIG_SETUP)
    CC := $(CURDIR)/$(BIN)/python -m ziglang cc -target $(shell uname -m)-linux-musl
  endif
endif

.PHONY: help
help: ## list the tasks
	@awk -F ':.*## ' '/^## /{printf "\n%s\n", substr($$0, 4)} /^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Set up and build

.PHONY: setup
setup: $(SETUP) ## make .venv from the locked requirements
	@:

$(SETUP): pyproject.toml requirements/dev.txt tools/make-venv
	tools/make-venv $(PYTHON)
	@mkdir -p $(@D) && touch $@

$(ZIG_SETUP): requirements/zig.txt $(SETUP)
	$(BIN)/python -m pip install -qq --require-hashes --requirement $<
	@mkdir -p $(@D) && touch $@

$(FUZZ_SETUP): requirements/fuzz.txt $(SETUP)
	$(BIN)/python -m pip install -qq --require-hashes --requirement $<
	@mkdir -p $(@D) && touch $@

$(LOCK_SETUP): requirements/lock.txt $(SETUP)
	$(BIN)/python -m pip install -qq --require-hashes --requirement $<
	@mkdir -p $(@D) && touch $@

$(BENCH_SETUP): requirements/bench.txt $(SETUP)
	$(BIN)/python -m pip install -qq --require-hashes --requirement $<
	@mkdir -p $(@D) && touch $@

.PHONY: build
build: setup $(COMPILER) ## build the C core and put it into the package
	$(MAKE) -C init CC="$(CC)"
	@mkdir -p $(dir $(BUNDLE))
	@cmp -s $(INIT) $(BUNDLE) || install -m 0755 $(INIT) $(BUNDLE)

.PHONY: wheel
wheel: build ## build the wheel, C core included, into dist/
	$(BIN)/python -m pip wheel -qq --no-build-isolation --no-deps --wheel-dir dist .

.PHONY: lock
lock: $(LOCK_SETUP) ## write the lock files anew (ARGS=--upgrade for newer versions)
	tools/lock $(ARGS)

.PHONY: clean
clean: ## remove everything that can be made again
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis $(dir $(BUNDLE))
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -f init/Makefile ]; then $(MAKE) -C init clean; fi

## Check

.PHONY: lint
lint: setup ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: setup ## bring the Python code into style
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

.PHONY: types
types: setup ## check types
	$(BIN)/mypy

.PHONY: imports
imports: setup ## check that the layers hold
	$(BIN)/lint-imports --no-logo

.PHONY: test-fast
test-fast: setup ## run the unit and contract tests
	$(BIN)/pytest $(wildcard tests/unit tests/contract) $(ARGS)

.PHONY: test-c
test-c: setup $(COMPILER) ## run the tests of the C core, sanitizers included
	$(MAKE) -C init check CC="$(CC)"

.PHONY: test-packages
test-packages: ## install the system packages that tests use, where that is possible
	tools/install-test-packages

.PHONY: test
test: test-packages setup build lint types imports test-c ## run everything that CI checks (T=path for fewer tests, JOBS=n for processes)
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(T) $(ARGS)

.PHONY: fuzz
fuzz: build $(FUZZ_SETUP) ## look for input that breaks a parser, C and Python (SECONDS_EACH=n for longer)
	$(MAKE) -C init fuzz CC="$(CC)" FUZZ_SECONDS=$$(( 7 * $(SECONDS_EACH) ))
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH)

## Run

.PHONY: demo
demo: build ## show what a sandbox does, on this machine
	$(BIN)/python -m traforo.cli.demo $(ARGS)

.PHONY: up
up: build ## run control plane and worker here
	$(BIN)/traforo up $(ARGS)

.PHONY: bench
bench: build $(BENCH_SETUP) ## measure, side by side with what else is installed
	$(BIN)/python -m bench $(ARGS)
