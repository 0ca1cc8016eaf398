# The two commands that matter: `make run` and `make test`. Both build .venv when they must.
# Stamp files in .venv make a second call instant; a changed pyproject.toml or lock renews them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# --python: a fresh Debian has no ensurepip, so the environment is made without a pip of its own.
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check -qq
LOCK := requirements/dev.lock
RUN_STAMP := $(VENV)/.holdfast-all
DEV_STAMP := $(VENV)/.holdfast-dev

# What `make run` and `make test` are given besides: make run ARGS="--proxies 3"
ARGS ?=
# What `make promises` does: kills of a proxy in mid-cell, seconds of the outages, and how often
# a failure that takes seconds is repeated. CI does less (.ci/run), `make test` least.
KILLS ?= 100
OUTAGE ?= 60
TRIES ?= 3
# The same for `make frontend-tests`, where each kill takes some six seconds.
FRONTEND_KILLS ?= 10
# active-active or active-passive: the mode of the clusters of `make promises`.
MODE ?= active-active
# How many files of the suite run at the same time: its tests mostly wait for processes.
WORKERS ?= 2
# Where figures are left as files, besides being printed.
ARTEFACTS ?= .artefacts

# JupyterLab's half of the shim: its source, and what it is built into, which is committed.
LABEXTENSION := client_shim/labextension
LABEXTENSION_BUILT := client_shim/holdfast_client_shim/labextension/package.json

.PHONY: help run demo tutorial test lint types imports extras shim-oldest bench-quick promises lab-tests page-tests frontend-tests labextension labextension-test system-deps lock wheel clean models test-commands

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(BIN)/python:
	@echo "making $(VENV)"
	@$(PYTHON) -m venv --without-pip $(VENV)

# Even an editable installation copies the JupyterLab extension to where JupyterLab looks.
$(RUN_STAMP): pyproject.toml $(LOCK) $(LABEXTENSION_BUILT) | $(BIN)/python
	@echo "installing holdfast and JupyterLab into $(VENV) (a minute or two, once)"
	@$(PIP) install --constraint $(LOCK) --editable '.[all]'
	@touch $@

$(DEV_STAMP): $(LOCK) $(RUN_STAMP)
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) install --requirement $(LOCK)
	@touch $@

run: $(RUN_STAMP) ## etcd, two proxies, a launcher and JupyterLab on this machine; Ctrl-C ends all
	@exec $(BIN)/holdfast up $(ARGS)

demo: $(RUN_STAMP) ## a notebook runs for a minute while its proxies are killed; what arrives is counted
	@exec $(BIN)/holdfast demo $(ARGS)

tutorial: $(DEV_STAMP) ## every command of docs/tutorial, and `holdfast demo` itself
	@exec $(BIN)/python -m pytest -s -m long tests/docs tests/proxy/cli/demo $(ARGS)

test: $(DEV_STAMP) ## the test suite, without what takes minutes
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(DEV_STAMP) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV_STAMP) ## mypy, strict
	@$(BIN)/mypy

imports: $(DEV_STAMP) ## who may import whom
	@$(BIN)/lint-imports --no-cache

extras: $(DEV_STAMP) ## the wheel, and each extra imported in an environment of its own
	@exec $(BIN)/python -m pytest -m long tests/packaging $(ARGS)

shim-oldest: $(DEV_STAMP) ## the shim with the oldest jupyter_server, and with Kernel Gateway
	@exec $(BIN)/python -m pytest -m long tests/client_shim $(ARGS)

bench-quick: $(DEV_STAMP) ## round trip, burst and bulk beside jupyter_client and Kernel Gateway
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) $(BIN)/python -m pytest -s -m long tests/bench $(ARGS)

promises: $(DEV_STAMP) ## kill -9 in mid-cell 100 times, outages of a minute, and their figures
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) \
	  HOLDFAST_KILLS=$(KILLS) HOLDFAST_OUTAGE=$(OUTAGE) HOLDFAST_TRIES=$(TRIES) HOLDFAST_MODE=$(MODE) \
	  $(BIN)/python -m pytest -s -m e2e tests/e2e $(ARGS)

lab-tests: $(DEV_STAMP) ## JupyterLab in a browser while everything below it fails; screenshots
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) HOLDFAST_KILLS=$(KILLS) HOLDFAST_OUTAGE=$(OUTAGE) \
	  $(BIN)/python -m pytest -s -m long tests/lab $(ARGS)

page-tests: $(DEV_STAMP) ## the cluster page in a browser, also while its proxy is killed; screenshots
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) $(BIN)/python -m pytest -m long tests/proxy/page $(ARGS)

# A front end that is not Python, from npm; without lifecycle scripts (tests/frontends/.npmrc).
FRONTENDS := tests/frontends
$(FRONTENDS)/node_modules/.holdfast: $(FRONTENDS)/package-lock.json
	@echo "installing what the front-end tests need into $(FRONTENDS)/node_modules"
	@cd $(FRONTENDS) && npm ci --silent && touch node_modules/.holdfast

frontend-tests: $(DEV_STAMP) $(FRONTENDS)/node_modules/.holdfast ## clients without the shim, HAProxy
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) HOLDFAST_KILLS=$(FRONTEND_KILLS) \
	  $(BIN)/python -m pytest -s -m long $(FRONTENDS) tests/e2e/test_haproxy.py $(ARGS)

$(LABEXTENSION)/node_modules/.holdfast: $(LABEXTENSION)/package-lock.json
	@echo "installing what builds the JupyterLab extension into $(LABEXTENSION)/node_modules"
	@cd $(LABEXTENSION) && npm ci --silent && touch node_modules/.holdfast

# Needs Node 20 and npm; nothing else here does. The built files are to be committed with the source.
labextension: $(LABEXTENSION)/node_modules/.holdfast ## build the JupyterLab extension from source
	@cd $(LABEXTENSION) && npm run --silent build

labextension-test: $(DEV_STAMP) $(LABEXTENSION)/node_modules/.holdfast ## its logic, its build, its looks in JupyterLab
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) \
	  $(BIN)/python -m pytest -m long tests/labextension $(ARGS)

test-commands: $(DEV_STAMP) ## `holdfast list`, `doctor` and their like, on a cluster that is taken apart
	@exec $(BIN)/python -m pytest -m long tests/proxy/cli/commands $(ARGS)

models: $(DEV_STAMP) ## spin over the Promela models beside the protocol, and planted bugs
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) $(BIN)/python -m pytest -s -m long tests/models $(ARGS)

system-deps: ## Debian packages that tests need (root, or sudo without a password)
	@missing=$$(sed -E 's/#.*//; s/[[:space:]].*//' requirements/system.txt | while read -r name; do \
	    if [ -n "$$name" ] && ! dpkg -s "$$name" >/dev/null 2>&1; then echo "$$name"; fi; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	echo "installing" $$missing; \
	as=; if [ "$$(id -u)" != 0 ]; then as="sudo -n"; fi; \
	$$as apt-get update -qq; \
	$$as env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing

lock: $(DEV_STAMP) ## write requirements/dev.lock from what .venv holds
	@sed -n '/^#/p' $(LOCK) > $(LOCK).new
	@$(PIP) freeze --exclude-editable --exclude holdfast \
	  | grep -E '^[A-Za-z0-9._-]+==' | LC_ALL=C sort -f >> $(LOCK).new
	@mv $(LOCK).new $(LOCK)

wheel: $(DEV_STAMP) ## dist/holdfast-*.whl
	@$(PYTHON) -m pip --disable-pip-version-check -qq wheel --no-deps --wheel-dir dist .

clean: ## everything that these targets made
	@rm -rf $(VENV) dist build .artefacts .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
