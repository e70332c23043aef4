# `make demo` and `make test` start from nothing: Python (3.11 for the pinned versions) and make.

MODELS := smollm2-135m-instruct all-mpnet-base-v2 all-minilm-l6-v2

# Extra arguments for the installation of torch alone, say the index that has its CPU builds.
TORCH_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.stamp
# Two tests at a time, each with one thread: what is short gains nothing from a second core.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile
PIP_INSTALL := $(BIN)/python -m pip install -qq --progress-bar off --no-compile -c constraints.txt
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help env models demo families test test-offline test-slow lint check format clean distclean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

env: $(STAMP)  ## Create .venv with the pinned dependencies and valueflow (editable)

# Asked by starting it: a name on the path may be a shim without an interpreter behind it, and
# some systems ship Python without ensurepip.
FIND_PYTHON = for p in python3.11 python3; do \
	$$p -c "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo $$p && break; \
	done

$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	python=$$($(FIND_PYTHON)); \
	test -n "$$python" || { echo "Python 3.11 or newer with venv is needed" >&2; exit 1; }; \
	echo "creating .venv with $$python"; \
	$$python -m venv --clear .venv; }
	@echo "installing the dependencies"
# torch first and alone: whatever depends on it then finds it there and asks for no other build.
	@$(PIP_INSTALL) $(TORCH_ARGS) torch
	@$(PIP_INSTALL) -e ".[dev]"
# pip would compile with one core. Some packages hold files of other Pythons, which is no matter.
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@touch $@

models: $(STAMP)  ## Fetch the models of the demo and the tests (0.6 GB) into the cache
	@TQDM_DISABLE=1 $(BIN)/valueflow models fetch $(MODELS)

demo: models  ## Run the whole loop on a small model
	@$(BIN)/valueflow demo

families: $(STAMP)  ## Steer a model of each family that has weights here (1.9 GB to fetch); docs/families.md
	@TQDM_DISABLE=1 $(BIN)/valueflow models fetch $(MODELS) gemma-3-270m qwen2.5-coder-1.5b-instruct
	$(BIN)/python examples/families/family.py smollm2-135m-instruct --json out/families/1-smollm2.json
	$(BIN)/python examples/families/gemma.py --json out/families/2-gemma.json
	$(BIN)/python examples/families/qwen.py --json out/families/3-qwen.json
	$(BIN)/python examples/families/table.py out/families docs/families.md

test: lint models  ## Lint, then all tests but the slow ones
	$(PYTEST) -m "not slow" --durations=10

test-offline: lint  ## The same without fetching: tests of a model that the cache lacks are skipped
	$(PYTEST) -m "not slow"

test-slow: models  ## The tests that take minutes
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP)  ## Style, formatting, and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo

check: lint  ## Lint and types
	$(BIN)/pyright

format: $(STAMP)  ## Reformat, and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## Remove what tools left behind
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find valueflow tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## Remove the environment too
	rm -rf .venv
