# `make` lists what there is. Everything is installed into .venv; nothing outside this directory is touched.

PYTHON ?= python3
TORCH := torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
.DEFAULT_GOAL := help

# Stamps: a set-up step runs again only when what it depends on has changed.
PYTHON_READY := $(VENV)/.ready-python
TORCH_READY := $(VENV)/.ready-$(TORCH)
PACKAGE_READY := $(VENV)/.ready-package
DEV_READY := $(VENV)/.ready-dev
BENCH_READY := $(VENV)/.ready-bench

.PHONY: help install demo test live bench closure constraints clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

install: $(PACKAGE_READY) ## make .venv with the package in it

demo: $(PACKAGE_READY) ## run the tutorial's program with global parameters here, without any account
	cd examples && ../$(BIN)/python global_parameters.py

test: $(DEV_READY) ## format, lint, types, import layers, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

live: $(DEV_READY) ## all tests on the real iDDS and Rucio, also the long ones that `make test` names but leaves out
	LIVE=all $(BIN)/pytest tests/live

bench: $(BENCH_READY) ## measure beside the peers, in ten minutes; the figures are explained in benchmarks/README.md
	$(BIN)/python benchmarks/run.py

closure: $(BENCH_READY) ## optimize known problems beside a bare loop of Ax, in an hour; writes benchmarks/closure/RESULTS.md
	$(MAKE) VENV=.cache/plain install
	$(BIN)/python benchmarks/closure/run.py

constraints: ## write constraints.txt anew from the newest versions that fit pyproject.toml
	set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(PYTHON) -m venv $$scratch/venv; \
	$$scratch/venv/bin/python -m pip install -q $(TORCH); \
	$$scratch/venv/bin/python -m pip install -q '.[dev,panda,rucio,bench]'; \
	{ sed -n '/^#/p' constraints.txt; \
	  $$scratch/venv/bin/python -m pip freeze --exclude aid2e-scheduler | sed -n 's/+cpu$$//; /==/p' | sort -fu; \
	} > $$scratch/constraints.txt; \
	cp $$scratch/constraints.txt constraints.txt

clean: ## remove .venv, the environments of the live tests and caches; run directories stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache dist
	find examples src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(PYTHON_READY):
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed, .venv has $$($(BIN)/python --version). Try: make clean install PYTHON=python3.12"; \
	  exit 1; }
	@touch $@

# Torch goes first and by name: asked for by another package, pip takes the newest build, which may be a CUDA one of
# several GB. A torch of this version that is already in .venv (README, "Torch") is kept.
$(TORCH_READY): $(PYTHON_READY)
	@echo "Installing $(TORCH) ..."
	@$(PIP) install --quiet $(TORCH)
	@touch $@

$(PACKAGE_READY): $(TORCH_READY) pyproject.toml constraints.txt
	@echo "Installing the package with Ax and BoTorch (1.5 GB with torch, a minute or more) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEV_READY): $(PACKAGE_READY)
	@echo "Installing the development tools ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(BENCH_READY): $(PACKAGE_READY)
	@echo "Installing the peers that are measured beside us ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@
