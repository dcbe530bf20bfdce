# The two commands that are the whole set-up on a fresh machine: `make demo` and `make test`.
#
# PYTHON     which interpreter makes the environment (3.11 or later)
# PIP_EXTRA  more arguments for pip. On Linux, PyPI's torch brings gigabytes of CUDA libraries; to do without them:
#            make demo PIP_EXTRA="--extra-index-url https://download.pytorch.org/whl/cpu"
# PYTEST     more arguments for pytest

PYTHON ?= python3
PIP_EXTRA ?=
PYTEST ?=

BIN := .venv/bin
# An environment that works is kept, a broken or missing one is made anew.
ENVIRONMENT = @$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
# Nothing is compiled to bytecode beforehand: most of torch is never imported.
INSTALL = $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt $(PIP_EXTRA)
# One thread a worker: two workers of two threads each on two cores get in each other's way.
RUN_TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: help demo test check docs format bench nightly clean

help:
	@echo "make demo     install into .venv, probe the packaged model, write demo/report.html"
	@echo "make test     run the tests"
	@echo "make check    lint, formatting, types, layers"
	@echo "make docs     build the site of the documentation, build/docs/index.html; a warning is an error"
	@echo "make format   mend what the linter can mend"
	@echo "make bench    time the package"
	@echo "make nightly  run the tests that are too slow for every change"
	@echo "make clean    remove .venv and everything that was built"

demo: .venv/installed
	@mkdir -p demo
	$(BIN)/goniometer probe pet-water --report demo/report.html --json demo/report.json
	@echo "The report: $(CURDIR)/demo/report.html"
	@echo "For the command goniometer: source .venv/bin/activate"

test: .venv/installed-dev
	$(RUN_TESTS) -m "not nightly" $(PYTEST)

nightly: .venv/installed-dev
	$(RUN_TESTS) -m nightly $(PYTEST)

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -E -a -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "The site: $(CURDIR)/build/docs/index.html"

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/installed-dev
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

clean:
	rm -rf .venv demo build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Each stamp is written last, so that an installation that was interrupted is taken up again. The environment of the
# developers holds that of the users.
.venv/installed: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	@echo "Installing goniometer into .venv"
	@$(INSTALL) --editable ".[metatomic,dynamics,report]"
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	@echo "Installing goniometer into .venv, with what its tests and checks need"
	@$(INSTALL) --editable ".[test,lint,docs]"
	@touch .venv/installed $@

.NOTPARALLEL:
