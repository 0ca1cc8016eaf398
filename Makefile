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
# `make simulation`: stories that Hypothesis makes up (0: the few that are always the same), and
# the seed that they come from.
EXAMPLES ?= 0
SEED ?=
# How many websockets over how many kernels `make storm` has.
STORM ?= 2000/20
# active-active or active-passive: the mode of the clusters of `make promises`.
MODE ?= active-active
# What `make chaos` does: for how long faults go on, and from which seed (none: a new one).
SECONDS ?= 300
SEED ?=
# How many files of the suite run at the same time: its tests mostly wait for processes.
WORKERS ?= 2
# Where figures are left as files, besides being printed.
ARTEFACTS ?= .artefacts

# JupyterLab's half of the shim: its source, and what it is built into, which is committed.
LABEXTENSION := client_shim/labextension
LABEXTENSION_BUILT := client_shim/holdfast_client_shim/labextension/package.json

.PHONY: help run demo tutorial test conformance lint types imports extras shim-oldest clients bench-quick promises matrix lab-tests page-tests frontend-tests labextension labextension-test system-deps engines lock wheel clean models simulation test-commands chaos chaos-planted storm

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
	@exec $(BIN)/python -m pytest -m long tests/client_shim --ignore tests/client_shim/client $(ARGS)

bench-quick: $(DEV_STAMP) ## round trip, burst and bulk beside jupyter_client and Kernel Gateway
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) $(BIN)/python -m pytest -s -m long tests/bench $(ARGS)

promises: $(DEV_STAMP) ## kill -9 in mid-cell 100 times, outages of a minute, and their figures
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) \
	  HOLDFAST_KILLS=$(KILLS) HOLDFAST_OUTAGE=$(OUTAGE) HOLDFAST_TRIES=$(TRIES) HOLDFAST_MODE=$(MODE) \
	  $(BIN)/python -m pytest -s -m e2e tests/e2e $(ARGS)

# TRIES=100 OUTAGE=120 is the whole of it: faults of an instant 100 times, those of seconds 10 times,
# longer ones 3 times. Needs root for network namespaces and a small disk; skips those rows without.
matrix: $(DEV_STAMP) ## every fault on real parts: time to recover, what is lost and doubled
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) \
	  HOLDFAST_OUTAGE=$(OUTAGE) HOLDFAST_TRIES=$(TRIES) HOLDFAST_MODE=$(MODE) \
	  $(BIN)/python -m pytest -m long tests/e2e/matrix $(ARGS)

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
	  $(BIN)/python -m pytest -s -m long $(FRONTENDS) tests/e2e/test_haproxy.py \
	  tests/e2e/test_haproxy_passive.py $(ARGS)

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

# nbclient's test suite comes from its source distribution, when the tests run.
clients: $(DEV_STAMP) ## nbclient, papermill and their like while proxies are killed; nbclient's own tests
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) HOLDFAST_KILLS=$(KILLS) \
	  $(BIN)/python -m pytest -s -m long tests/client_shim/client $(ARGS)

storm: $(DEV_STAMP) ## a proxy with 2,000 websockets is killed: how long until all are back (STORM=300/4: fewer)
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) HOLDFAST_STORM=$(STORM) \
	  $(BIN)/python -m pytest -s -m long tests/storm $(ARGS)

# The page's table is written anew unless CI looks whether it would be the same run.
CONFORMANCE_PAGE ?= docs/reference/conformance.md
conformance: $(DEV_STAMP) ## one API suite against Holdfast, Jupyter Server and Kernel Gateway; jupyter_kernel_test
	@HOLDFAST_CONFORMANCE_PAGE=$(if $(CI),,$(abspath $(CONFORMANCE_PAGE))) \
	  $(BIN)/python -m pytest -s -m long tests/conformance $(ARGS)

test-commands: $(DEV_STAMP) ## `holdfast list`, `doctor` and their like, on a cluster that is taken apart
	@exec $(BIN)/python -m pytest -m long tests/proxy/cli/commands $(ARGS)

engines: $(DEV_STAMP) ## kernels on a real Slurm of three nodes: the everyday, and each thing that can fail
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) $(BIN)/python -m pytest -s -m long tests/launcher/engines $(ARGS)

models: $(DEV_STAMP) ## spin over the Promela models beside the protocol, and planted bugs
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) $(BIN)/python -m pytest -s -m long tests/models $(ARGS)

# Its own process, not pytest: it lives in a network namespace of its own, and ends with a verdict.
chaos: $(DEV_STAMP) ## random faults on a whole cluster, seeded, and a checker's verdict; SEED= SECONDS=
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@mkdir -p $(ARTEFACTS)
	@cd tests && HOLDFAST_ARTEFACTS=$(abspath $(ARTEFACTS)) exec $(abspath $(BIN))/python \
	  -m support.chaos $(if $(SEED),--seed $(SEED)) --seconds $(SECONDS) $(ARGS)

chaos-planted: $(DEV_STAMP) ## the same with a loss, a double execution, a stale call planted: each must be found
	@if [ "$$(id -u)" = 0 ] || [ -n "$${CI:-}" ]; then $(MAKE) --no-print-directory system-deps; fi
	@exec $(BIN)/python -m pytest -s -m long tests/chaos $(ARGS)

simulation: $(DEV_STAMP) ## ownership and stream, simulated: every await point, and EXAMPLES from SEED
	@HOLDFAST_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -s -m "long or not long" \
	  --timeout 3600 $(if $(SEED),--hypothesis-seed=$(SEED)) tests/simulation $(ARGS)

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
