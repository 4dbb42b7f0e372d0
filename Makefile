# The few commands there are. `make demo` needs only the core; everything else installs the development tools.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo setup test test-all test-optimum lint format bench docs clean

demo: $(VENV)/.core  ## Compile Cerebras-GPT 111M for the simulated WSE-2: report on the screen, picture in out/111m
	$(BIN)/cgc compile examples/cerebras_gpt/111m.cg --target=wse-sim -o $(OUT)/111m

setup: $(VENV)/.dev  ## Install the package with all targets and the development tools

test: setup  ## The default test suite (a few minutes on two cores)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: setup  ## Everything, also what takes long; random tests draw new examples
	CGC_EXPLORE=1 $(BIN)/python -m pytest -n 2

test-optimum: setup  ## optimum's runtime, in an environment of its own: it needs an older transformers
	$(BIN)/python -m benchmarks.onnx_peers $(VENV)-optimum
	$(VENV)-optimum/bin/python -m pytest -n 0 tests/differential/test_onnx_runtimes.py -k optimum

lint: setup  ## Style and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cgc fmt --check grammar/std/*.cg grammar/devices/*.cg examples/*.cg examples/cerebras_gpt/*.cg

format: setup  ## Put all sources into their canonical layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/cgc fmt grammar/std/*.cg grammar/devices/*.cg examples/*.cg examples/cerebras_gpt/*.cg

bench: $(VENV)/.bench  ## Side by side with peers; prints the README's table
	$(BIN)/python -m benchmarks

docs: setup  ## Make the generated pages anew
	$(BIN)/python -m cgc.diagnostics.codes examples/errors > docs/errors.md

clean:
	rm -rf $(VENV) $(VENV)-optimum $(OUT) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable '.[dev]'
	$(PIP_INSTALL) --no-deps mup  # torchvision, pandas and seaborn, which it asks for, only draw its plots
	touch $@ $(VENV)/.core

$(VENV)/.bench: $(VENV)/.dev
	$(PIP_INSTALL) --editable '.[dev,bench]'
	touch $@
