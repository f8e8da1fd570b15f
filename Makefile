# The two to know: `make demo` shows what replswitch does, `make test` proves it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes, and none of them should compile all modules again.
export PYTHONDONTWRITEBYTECODE :=

# Four on two cores: the tests spend much of their time waiting.
SHARED := --numprocesses 4

.PHONY: help demo test test-all lint types format coverage bench build clean venv mariadb mysql mysqlclient pgbouncer FORCE
.DEFAULT_GOAL := help

help: ## list the targets (this list)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=$(PYTHON) (3.11 or newer), VENV=$(VENV), PORT and DATABASE (demo: mariadb, postgresql, sqlite), ARGS (test, test-all, coverage, bench)."

demo: $(VENV)/installed ## run the message board on a replicated pair, until Ctrl-C (DATABASE=postgresql, PORT=8000)
	@$(BIN)/python examples/board $(if $(PORT),--port $(PORT)) $(if $(DATABASE),--database $(DATABASE))

test: mariadb mysql mysqlclient pgbouncer lint types ## everything before a commit: lint, types, all tests (ARGS="-k marker" narrows them)
	$(BIN)/pytest $(SHARED) $(ARGS)

test-all: mariadb mysql mysqlclient pgbouncer ## the tests on every supported Python and framework that is here, and on the wheel
	$(BIN)/nox $(ARGS)

lint: $(VENV)/installed ## style and layout (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed ## types (mypy --strict)
	$(BIN)/mypy

format: $(VENV)/installed ## repair style and layout where ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: mariadb mysql mysqlclient pgbouncer ## the tests, and the lines that none of them ran
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report --show-missing --skip-covered

bench: mariadb mysql mysqlclient ## the benchmarks of cost (ARGS=chaos: those of another folder; ARGS=--help lists them)
	$(BIN)/python benchmarks $(ARGS)

build: $(VENV)/installed ## sdist and wheel, into dist/
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

# Not in the extra dev: where it cannot be compiled, everything else goes on without it.
mysqlclient: $(VENV)/installed
	@tools/ensure-mysqlclient $(BIN)/python

# Installed again when the requirements changed, or when a module came or went: a strict editable install
# (setup.cfg) links each file by its name. A change inside a file needs nothing.
$(VENV)/installed: pyproject.toml setup.cfg $(VENV)/modules
	@echo "Installing replswitch and its tools into $(VENV)"
	@$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@

$(VENV)/modules: FORCE | venv
	@find src integrations -type f ! -name '*.pyc' | LC_ALL=C sort > $@.new
	@test -d build && cmp -s $@.new $@ || cp $@.new $@
