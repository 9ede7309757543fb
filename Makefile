# What one does with Gatepost's sources; CI runs `make test` and nothing else.
# Everything works on a bare Debian 12 with Rust: what is missing is installed, and said before.

CARGO  ?= cargo
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
TARGET := $(or $(CARGO_TARGET_DIR),target)
export GATEPOST ?= $(abspath $(TARGET))/debug/gatepost

# Postfix and Dovecot start as root and then change to users of their own.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo -E env "PATH=$(PATH)")

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all e2e e2e-direct fmt fmt-check clippy unit doc bench build install toolchain clean

help: ## this list
	@echo "make …"
	@sed -n 's/^\([a-z0-9-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo "one end-to-end test alone:  make e2e ONLY=custody      against the servers without the gate:  make e2e-direct"

demo: install ## a real Postfix and Dovecot, Gatepost in front, three messages, one table; Ctrl-C ends it (ONCE=1: by itself)
	@echo "Building Gatepost (development profile: ready in half the time, slower at work) …"
	@$(CARGO) build --quiet
	@$(AS_ROOT) $(PYTHON) -B tests/e2e/demo.py $(if $(filter-out 0,$(ONCE)),--once)

test: install fmt-check clippy unit e2e ## what CI runs: formatting, lints, unit and table tests, end to end with real servers

test-all: install fmt-check clippy unit doc ## everything, also what takes long: 200 kills instead of 15
	$(CARGO) build
	$(AS_ROOT) $(PYTHON) -B tests/e2e/run.py --all $(ONLY)

e2e: install ## the end-to-end tests only (ONLY=part of a name)
	$(CARGO) build
	$(AS_ROOT) $(PYTHON) -B tests/e2e/run.py $(ONLY)

e2e-direct: install ## the same tests straight against the real servers: what clients see without the gate
	$(AS_ROOT) env E2E_GATE=off $(PYTHON) -B tests/e2e/run.py $(ONLY)

fmt: toolchain ## format the sources
	$(CARGO) fmt

fmt-check: toolchain
	$(CARGO) fmt --check

clippy: toolchain ## lints, warnings are errors
	$(CARGO) clippy --all-targets -- -D warnings

unit: ## unit, table and transcript tests
	$(CARGO) test

doc: ## the documentation of the sources, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

bench: ## benchmarks
	@if ls benches/*.rs >/dev/null 2>&1; then $(CARGO) bench; else echo "There are no benchmarks yet (benches/ is empty)."; fi

build: ## the program, optimised
	$(CARGO) build --release

install: ## Debian packages that building, demo and tests need; says which are missing and installs them
	@tests/e2e/install.sh

toolchain:
	@command -v $(CARGO) >/dev/null || { echo "cargo is not on PATH; fix: install Rust (https://rustup.rs)" >&2; exit 1; }
	@$(CARGO) fmt --version >/dev/null 2>&1 && $(CARGO) clippy --version >/dev/null 2>&1 || { \
	    echo "Installing rustfmt and clippy with rustup"; rustup component add rustfmt clippy; }

clean: ## remove what was built
	$(CARGO) clean
	rm -rf tests/e2e/__pycache__
