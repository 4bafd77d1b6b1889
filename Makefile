# `make bench` and `make test` set up .venv by themselves, once; all they need is Python 3.11 or newer with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# On a machine with an NVIDIA driver CuPy is installed too: for CUDA 13 from driver 580 on, for CUDA 12 before that.
DRIVER := $(shell nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d. -f1 | grep -E '^[0-9]+$$')
CUDA ?= $(if $(DRIVER),$(shell [ $(DRIVER) -ge 580 ] && echo cuda13 || echo cuda12))
empty :=
comma := ,
with = $(if $(strip $(1) $(CUDA)),[$(subst $(empty) $(empty),$(comma),$(strip $(1) $(CUDA)))])

.PHONY: help bench test test-lowest lint docs linkcheck regress lock dist clean
help:
	@echo "make bench   epoch times of every backend, as a table and as bench.png (options: make bench ARGS='--hidden 256,128')"
	@echo "make test    the test suite (options: make test ARGS='-k network')"
	@echo "make docs    the documentation, in docs/_build/html; the notebook is executed, a warning is an error"
	@echo "make linkcheck   whether the links in it lead somewhere, those to other sites too where there is a network"
	@echo "make lint    format, lint and types"
	@echo "make regress BASE=main   is the working tree slower than that commit? (options: ARGS='--backends numba')"
	@echo "make test-lowest  the same with the oldest versions that pyproject.toml allows"
	@echo "make dist    wheel and sdist, built twice: both must be the same bytes"
	@echo "make lock    write requirements/*.txt anew: the newest versions that pyproject.toml allows, and the oldest"
	@echo "make clean   remove what make made"

bench: $(VENV)/bench-ready
	$(BIN)/mlp-accel bench --plot bench.png --json bench.json $(ARGS)

# In up to four processes, whole files in each. A test alone: .venv/bin/python -m pytest tests/test_network.py -k ...
PYTEST = -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
test: $(VENV)/test-ready
	$(BIN)/python $(PYTEST) $(ARGS)

test-lowest:
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --requirement requirements/lowest.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --no-deps --editable .
	$(VENV)-lowest/bin/python -m pip check
	$(VENV)-lowest/bin/python $(PYTEST) $(ARGS)

lint: $(VENV)/dev-ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run docker/try.sh
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint docker/Dockerfile; else echo "hadolint is not to be had here: docker/Dockerfile is not checked"; fi

# The commands whose --help stands in the pages are those of this environment.
SPHINX = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs
docs: $(VENV)/docs-ready
	$(SPHINX) --builder html docs/_build/html
	@echo "open docs/_build/html/index.html"

linkcheck: $(VENV)/docs-ready
	$(SPHINX) --builder linkcheck docs/_build/linkcheck

# Exact versions with hashes, for every Python and system we support. uv resolves for all of them at once; pip installs them.
LOCK = $(BIN)/uv pip compile --quiet --no-emit-index-url --custom-compile-command "make lock" --upgrade
LOCK_ALL = $(LOCK) --universal --python-version 3.11 --generate-hashes
lock: $(VENV)/dev-ready
	echo 'hatchling>=1.27' | $(LOCK_ALL) --output-file requirements/build.txt -
	$(LOCK_ALL) --output-file requirements/cpu.txt pyproject.toml
	$(LOCK_ALL) --output-file requirements/cluster.txt --extra dask pyproject.toml
	$(LOCK_ALL) --output-file requirements/gpu.txt --extra cuda13 pyproject.toml
	$(LOCK_ALL) --output-file requirements/dev.txt --extra dev pyproject.toml
	$(LOCK) --python-version 3.11 --resolution lowest-direct --output-file requirements/lowest.txt --extra test pyproject.toml

dist: $(VENV)/dev-ready
	rm -rf dist build
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m build --outdir build/again
	diff --recursive dist build/again
	rm -rf build

BASE ?= main
regress: $(VENV)/bench-ready
	$(BIN)/mlp-accel ab --base $(BASE) $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-lowest bench.png bench.json build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bench-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.$(call with,)'
	@touch $@

$(VENV)/test-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.$(call with,test)'
	@touch $@ $(VENV)/bench-ready

$(VENV)/docs-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.$(call with,docs)'
	@touch $@ $(VENV)/bench-ready

$(VENV)/dev-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.$(call with,dev)'
	@touch $@ $(VENV)/test-ready $(VENV)/bench-ready

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"$(PYTHON) is Python {v.major}.{v.minor}; mlp_accel needs 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "setting up $(VENV) (once)"
	$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
