# Everything here needs Python >= 3.11, make and git, nothing else. `make help` lists the actions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= auto
# Half of a test's time is waiting, for a browser or a process: twice as many at a time as there are cores.
TESTERS ?= $(shell $(PYTHON) -c 'import os; print(2 * len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')

# Tests of whole experiments and the like, which `make quick` leaves out.
LONG := stats or normalised_chapter or moments or calibrate or curvature or campaign or perform or margins or scale or synthesis or flatness or smoothing_ or geometry or elsewhere or networks or experiments or precision or convolutional or oracles or golden or test_report or trials or test_night or test_graphs or test_step or test_stability or test_registry or test_waits or test_house or test_search_noise or test_balance or test_gram or test_signs or test_lease or test_code or triton or test_compiled

# A build and its tests start hundreds of processes: each would compile the library anew if nothing compiled were kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help book test quick test-elsewhere lint check reference lock serve lab release clean

help: ## list the actions
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

book: $(READY) ## execute the chapters whose inputs moved and build the site into _build/html
	$(BIN)/descent build --jobs $(JOBS)

test: $(READY) ## run every test: library, pipeline, chapters against their references, site in a browser
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

quick: $(READY) ## the tests of a developer's loop, under a minute: no chapter, no browser, nothing slow
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not browser" -k "not ($(LONG))" tests/unit

test-elsewhere: $(READY) ## the tests that touch arithmetic, and a chapter each, under the kernels of other processors
	$(BIN)/python tests/kernels.py

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: $(READY) ## run the experiments of a chapter for other master seeds: make check CHAPTER=saddles SEEDS=5
	$(BIN)/descent check $(or $(CHAPTER),saddles) --seeds $(or $(SEEDS),5)

reference: $(READY) ## renew the reference notebooks and print what changed
	$(BIN)/descent reference
	git --no-pager diff --stat -- tests/notebooks data/published
	git --no-pager diff -- tests/notebooks

lock: ## renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url -o requirements.lock

serve: $(READY) ## read the built site at http://127.0.0.1:8000
	$(BIN)/descent serve

lab: $(READY) ## open the chapters as notebooks in JupyterLab, which is not among the locked packages
	@$(BIN)/python -c 'import jupyterlab' 2>/dev/null || { echo "JupyterLab is missing: $(BIN)/python -m pip install jupyterlab"; exit 1; }
	$(BIN)/jupyter lab chapters

release: $(READY) ## pack the built site and what it publishes into dist/, with checksums
	$(BIN)/descent release

clean: ## remove everything that is built
	rm -rf _build dist runs .pytest_cache .mypy_cache .ruff_cache
