# Everything starts from nothing: each target finds a Python >= 3.12, makes a virtual environment and
# installs what it needs, once.

SHELL := /bin/bash
DJANGO ?=
PYTHON ?=
ARGS ?=

VENV := .venv$(if $(DJANGO),-$(DJANGO))
RUN := $(VENV)/bin/python
PARALLEL := --dist loadscope --numprocesses
comma := ,
# Hundreds of processes would compile the package, each for itself.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = @.ci/venv.sh "$(VENV)" "$(1)" "$(DJANGO)" "$(PYTHON)"

# Two targets at a time would install into one environment at a time.
.NOTPARALLEL:
.PHONY: help test quick lint types pytest coverage format docs dist demo bench fuzz damage powercut clean \
    venv-dev venv-test venv-docs venv-dist venv-demo venv-bench

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo
	@echo "  DJANGO=6.0        another Django than the newest, in an environment of its own"
	@echo "  PYTHON=PATH       this interpreter"
	@echo '  ARGS="-k ring"    arguments for pytest, demo, bench, fuzz, damage and powercut'

test: lint types docs pytest  ## lint, types, documentation and all tests: 15 minutes

quick: lint types venv-test  ## lint, types and the tests without processes around them: 3 minutes
	$(RUN) -m pytest tests/unit
	$(RUN) -m pytest $(PARALLEL) 2 tests/contract tests/docs

lint: venv-dev  ## ruff
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: venv-dev  ## let ruff mend what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: venv-dev  ## mypy, and mypy and pyright for a user's project
	$(RUN) -m mypy
	$(RUN) -m mypy --config-file tests/typing/mypy.ini
	$(RUN) -m pyright --project tests/typing --pythonpath $(RUN)

# What waits for other processes goes several at a time. What forks does not: that takes a process
# with a single thread, and the crash tests, which fork tens of thousands of times, a small one.
pytest: venv-test  ## all tests; some with ARGS
ifdef ARGS
	$(RUN) -m pytest $(ARGS)
else
	$(RUN) -m pytest $(addprefix --ignore tests/,contract docs process crash)
	$(RUN) -m pytest $(PARALLEL) 4 tests/contract tests/docs tests/process
	$(RUN) -m pytest tests/crash
endif

coverage: venv-test  ## all tests, with branch coverage
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest $(ARGS)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

docs: venv-docs  ## the documentation site, in build/docs
	$(RUN) -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

dist: venv-dist  ## the wheel and the source distribution, in dist
	rm -rf build/lib dist
	$(RUN) -m build --outdir dist .
	$(RUN) -m twine check --strict dist/*

demo: venv-demo  ## the example site under gunicorn
	$(RUN) examples/demo.py $(ARGS)

bench: venv-bench  ## measure
	$(RUN) benchmarks/run_all.py $(ARGS)

fuzz: venv-test  ## kill processes at random, for long
	$(RUN) -m tests.crash.fuzz $(ARGS)

damage: venv-test  ## damage rings at random, 10,000 times
	$(RUN) -m tests.crash.damage $(ARGS)

powercut: venv-test  ## cut the power at random, 6,000 times
	$(RUN) -m tests.crash.powercut $(ARGS)

venv-dev:
	$(call INSTALL,test$(comma)lint)
venv-test:
	$(call INSTALL,test)
venv-docs:
	$(call INSTALL,docs)
venv-dist:
	$(call INSTALL,dist)
venv-demo:
	$(call INSTALL,demo)
venv-bench:
	$(call INSTALL,bench)

clean:  ## remove environments and what was built
	rm -rf .venv .venv-* build dist *.egg-info .coverage .coverage.* htmlcov \
	    .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
