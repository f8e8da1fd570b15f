# The two to know: `make demo` shows what replswitch does, `make test` proves it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes, and none of them should compile all modules again.
export PYTHONDONTWRITEBYTECODE :=

# Four on two cores: the tests spend much of their time waiting.
SHARED := --numprocesses 4

.PHONY: help demo test test-all lint types format coverage bench docs screenshots build clean \
	venv mariadb mysql mysqlclient pgbouncer redis chromium FORCE
.DEFAULT_GOAL := help

help: ## list the targets (this list)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=$(PYTHON) (3.11 or newer), VENV=$(VENV), PORT and DATABASE (demo: mariadb, postgresql, sqlite), ARGS (test, test-all, coverage, bench)."

# The extra dev contains the extra demo.
demo: $(VENV)/has-$(if $(wildcard $(VENV)/has-dev),dev,demo) ## run the message board on a replicated pair, until Ctrl-C (DATABASE=postgresql, PORT=8000)
	@$(BIN)/python examples/board $(if $(PORT),--port $(PORT)) $(if $(DATABASE),--database $(DATABASE))

test: mariadb mysql mysqlclient pgbouncer redis chromium lint types ## everything before a commit: lint, types, all tests (ARGS="-k marker" narrows them)
	tools/in-memory $(BIN)/pytest $(SHARED) $(ARGS)

test-all: mariadb mysql mysqlclient pgbouncer redis chromium ## the tests on the wheel, on the other supported Pythons that are here, and on the oldest dependencies; each extra alone
	tools/in-memory $(BIN)/nox $(ARGS)

lint: $(VENV)/has-dev ## style and layout (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/has-dev ## types (mypy --strict)
	$(BIN)/mypy

format: $(VENV)/has-dev ## repair style and layout where ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: mariadb mysql mysqlclient pgbouncer redis chromium ## the tests, and the lines that none of them ran
	tools/in-memory $(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report --show-missing --skip-covered

bench: mariadb mysql mysqlclient ## the benchmarks of cost (ARGS=chaos: those of another folder; ARGS=--help lists them)
	$(BIN)/python benchmarks $(ARGS)

screenshots: mariadb chromium $(VENV)/has-dev ## walk through the demo with Chromium, and save what it shows in docs/images
	SCREENSHOTS=docs/images $(BIN)/pytest tests/test_examples/test_board.py -k test_m1_in_a_browser

# The extra dev contains the extra docs.
docs: $(VENV)/has-$(if $(wildcard $(VENV)/has-dev),dev,docs) ## the documentation site, into build/site; a warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going -d build/site-read docs build/site
	@echo "The site is in build/site: open build/site/index.html"

build: $(VENV)/has-dev ## sdist and wheel, into dist/
	$(BIN)/python -m build

# What was downloaded into ~/.cache/replswitch stays: it serves every checkout.
clean: ## remove what the other targets made, the virtual environments included, but for downloads
	rm -rf $(VENV) .nox build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

venv:
	@tools/ensure-venv '$(PYTHON)' '$(VENV)' $(if $(filter-out file default,$(origin PYTHON)),exact)

mariadb:
	@tools/ensure-mariadb

mysql: ## fetch a MySQL server for the tests, unless there is one (they do it themselves)
	@tools/ensure-mysql

pgbouncer:
	@tools/ensure-pgbouncer

chromium:
	@tools/ensure-chromium

redis:
	@tools/ensure-redis

# Not in the extra dev: where it cannot be compiled, everything else goes on without it.
mysqlclient: $(VENV)/has-dev
	@tools/ensure-mysqlclient $(BIN)/python

# One file for each extra of pyproject.toml that is installed. It is installed again when the requirements changed, or
# when a module came or went: a strict editable install (setup.cfg) links each file by its name. A change inside a file
# needs nothing.
$(VENV)/has-%: pyproject.toml setup.cfg $(VENV)/modules
	@echo "Installing replswitch and the packages of its extra $* into $(VENV)"
	@$(BIN)/python -m pip install -qq --editable '.[$*]'
	@touch $@

$(VENV)/modules: FORCE | venv
	@find src integrations -type f ! -name '*.pyc' | LC_ALL=C sort > $@.new
	@test -d build && cmp -s $@.new $@ || cp $@.new $@
