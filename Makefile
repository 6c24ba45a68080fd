# Needs only python3 and make: every target that runs Python makes its own environment first.
PYTHON ?= python3
VENV   ?= .venv
# Extra words for one call, for example: make test PYTEST_ARGS="-x -k subspace"
RUN_ARGS     ?=
PYTEST_ARGS  ?=
PIP_ARGS     ?=
BENCH_ARGS   ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/.cl_complora-installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-faults bench docs dist lint clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) RUN_ARGS PYTEST_ARGS PIP_ARGS BENCH_ARGS"

venv: $(STAMP)  ## an environment in $(VENV) with the package (editable) and the tested versions

# The stamp is written last, so that an install that was cut off is repeated. pip stays the one that came with
# Python: pip 23 and the newest agree here (docs/install.md). The tested versions have no wheels for Python 3.10,
# which therefore gets the newest ones that do.
$(STAMP): setup.py pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes and about 6 GB the first time, most of it torch with CUDA."
	@$(PYTHON) -m venv $(VENV)
	@tested=$$($(BIN)/python -c 'import sys; print("-c constraints.txt" * (sys.version_info >= (3, 11)))'); \
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) $$tested -e '.[test]'
	@touch $@

demo: venv  ## the default strategy on the default scenario
	$(BIN)/cl-complora run $(RUN_ARGS)

# A process for every core and one more (tests/conftest.py), and one thread in each; the tests of a file stay in one
# process and in order. What one process compiles the others read.
test: venv  ## all tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Whichever files have a long form, all of their tests.
test-faults: venv  ## the long forms: more faults and hostile input, all strategies everywhere, the main command
	CL_COMPLORA_FAULTS=long OMP_NUM_THREADS=1 $(BIN)/python -m pytest $$(grep -lw LONG tests/*/test_*.py) \
		-n auto --dist loadfile $(PYTEST_ARGS)

bench: venv  ## ours against its peers (an hour; BENCH_ARGS=--quick for minutes)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -e '.[bench]'
	$(BIN)/python -m benchmarks all $(BENCH_ARGS)

docs: venv  ## the pages as a site in site/, with links checked
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict

dist: venv  ## sdist and wheel in dist/, checked as an index would
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) build twine
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

lint: venv  ## ruff check
	$(BIN)/python -m ruff check .

clean:  ## build products and caches; the environment and runs/ stay
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find cl_complora tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
