# Everything starts from nothing: each target finds a Python >= 3.12, makes a virtual environment and
# installs what it needs, once.
#
#   make test               lint, types and all tests, with the newest Django
#   make test DJANGO=6.0    the same with another Django, in an environment of its own
#   make test PYTHON=...    with this interpreter
#   make pytest ARGS="-k ring -x"
#   make docs               the documentation site, in build/docs
#   make demo               the example site under gunicorn
#   make bench, fuzz, coverage, lint, types, format, clean

SHELL := /bin/bash
DJANGO ?=
PYTHON ?=
ARGS ?=

VENV := .venv$(if $(DJANGO),-$(DJANGO))
RUN := $(VENV)/bin/python
comma := ,
INSTALL = @.ci/venv.sh "$(VENV)" "$(1)" "$(DJANGO)" "$(PYTHON)"

# Two targets at a time would install into one environment at a time.
.NOTPARALLEL:
.PHONY: test lint types pytest coverage format docs demo bench fuzz clean venv-dev venv-test venv-docs venv-demo venv-bench

test: lint types pytest

lint: venv-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: venv-dev
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: venv-dev
	$(RUN) -m mypy

pytest: venv-test
	$(RUN) -m pytest $(ARGS)

coverage: venv-test
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest $(ARGS)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

docs: venv-docs
	$(RUN) -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

demo: venv-demo
	$(RUN) examples/demo.py $(ARGS)

bench: venv-bench
	$(RUN) benchmarks/run_all.py $(ARGS)

fuzz: venv-test
	$(RUN) -m tests.crash.fuzz $(ARGS)

venv-dev:
	$(call INSTALL,test$(comma)lint)
venv-test:
	$(call INSTALL,test)
venv-docs:
	$(call INSTALL,docs)
venv-demo:
	$(call INSTALL,demo)
venv-bench:
	$(call INSTALL,bench)

clean:
	rm -rf .venv .venv-* build *.egg-info .coverage .coverage.* htmlcov \
	    .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
