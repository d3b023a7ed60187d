# Needs only Python 3.11+, make and a network: every target makes the .venv it runs in. `make help` lists them.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# What to hand on to pytest, to the matrix or to the benchmarks: make test ARGS="-k bucket -x"
ARGS   ?=
# How many tests run at a time; most of them wait for a server. make test WORKERS=0 runs them in pytest's own process.
WORKERS ?= 4
# How often the chaos tests are run, each time with other faults: make chaos SEEDS=200
SEEDS  ?= 20
# What the tools look at: these directories, as far as they exist.
CODE   := $(wildcard django_natskv tests example_project benchmarks)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test contract coverage chaos lint format types layers matrix bench docs build clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.demo  ## walk through the real thing on a real server, then serve the example (ONCE=1: only the walk)
	@trap : INT; $(BIN)/python -m example_project.demo $(if $(ONCE),--once) || test $$? -eq 130  # Ctrl-C is no failure

test: $(VENV)/.dev  ## run the whole test suite
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

contract: $(VENV)/.dev  ## run Django's own cache tests alone
	@$(BIN)/python -m pytest tests/contract -n $(WORKERS) --dist worksteal $(ARGS)

coverage: $(VENV)/.dev  ## run the whole test suite and report the branches that no test takes
	@$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

lint: $(VENV)/.dev  ## check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## repair style and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.dev .cache/django-types/django  ## check the types, what users see of them also with pyright
	@$(BIN)/mypy $(CODE)
	@$(BIN)/pyright --pythonpath $(BIN)/python --project tests/typing

# What pyright reads Django's fields by: django-stubs need a plugin, which only mypy has. Not in the venv, where both clash.
.cache/django-types/django: | $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --no-deps --target .cache/django-types 'django-types>=0.24,<0.25'
	@ln -sfn django-stubs $@

layers: $(VENV)/.dev  ## check who imports whom
	@$(BIN)/lint-imports --no-logo

chaos: $(VENV)/.dev  ## break servers and lines under a thousand changes a second (SEEDS=200: that many runs)
	@NATSKV_CHAOS_SEEDS=$(SEEDS) $(BIN)/python -m pytest tests/chaos -p no:randomly $(ARGS)

matrix: $(VENV)/.dev  ## run the tests on each Python, Django and nats-server (ARGS=--corners: the oldest and the newest)
	@$(BIN)/python -m tests.matrix $(ARGS)

bench: $(VENV)/.bench  ## measure, beside Django's Redis cache
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/.docs  ## build the documentation into docs/_build
	@$(BIN)/sphinx-build -W --keep-going -q docs docs/_build
	@echo "docs/_build/index.html"

build: $(VENV)/.dev  ## build the wheel and the source distribution into dist
	@$(BIN)/python -m hatchling build

clean:  ## remove everything that the targets made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage* build dist docs/_build

# One environment; a stamp for each set of extras, older than pyproject.toml when there is something to install.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "django-natskv needs Python 3.11 or later; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

define install
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --editable '.[$(1)]'
	@touch $@
endef

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(call install,demo)

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(call install,dev)

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(call install,test$(comma)bench)

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(call install,docs)

comma := ,
