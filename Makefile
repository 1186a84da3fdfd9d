# One bootstrap for Linux and macOS; README.md says the same for Windows.
# `make PYTHON=python3.12 setup` takes another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Asked of the environment itself, for git gives a file a new time whenever it writes it, and that is no reason to install.
define INSTALLED
import importlib.metadata as installed, tomllib
from packaging.requirements import Requirement
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
installed.version(project["name"])
for needed in map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"]):
    if needed.marker is None or needed.marker.evaluate():
        assert needed.specifier.contains(installed.version(needed.name), prereleases=True)
endef
export INSTALLED

.PHONY: help setup demo lab app test notebooks docs bench

help:
	@echo "make setup      install everything into $(VENV) (the targets below do it themselves)"
	@echo "make demo       merge the embedded models and draw them side by side, into out/demo"
	@echo "make lab        open JupyterLab on the quickstart notebook"
	@echo "make app        serve the merge panel as a page of its own, at the address that is printed"
	@echo "make test       style, types, imports and all tests"
	@echo "make docs       write the public API as pages, into out/docs"
	@echo "make bench      measure every operator and the peers, and write the tables of benchmarks/README.md; ASKED=--help says how"
	@echo "make notebooks  run every notebook in full, and write what it shows into out/notebooks"

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; try: make PYTHON=python3.12 setup" if sys.version_info < (3, 11) else 0)'
	@if $(BIN)/python -c "$$INSTALLED" 2>/dev/null; then echo "$(VENV) has all that pyproject.toml asks for"; else \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'; fi
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/workbench demo

lab: $(STAMP)
	$(BIN)/workbench lab

# Settings, and a template that asks nothing of other machines, lie beside the notebook. Its page runs code for whoever
# opens it, so it answers on this machine only, under its own name, and with the token in the address that is printed.
app: $(STAMP)
	cd notebooks/app && JUPYTER_PATH=. $(CURDIR)/$(BIN)/voila merge.ipynb

# The models in the tests are small: more threads than one mostly wait for each other, and processes do not. Files begin in the
# order in which tests/conftest.py has them: the longest first. Python keeps what it compiles, even where a container says not
# to: a hundred processes import the package. While mypy has one core, the tests are compiled on the other, once for all workers.
test: export OMP_NUM_THREADS ?= 1
test: export PYTHONDONTWRITEBYTECODE =
test: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --collect-only >/dev/null & $(BIN)/mypy; typed=$$?; wait; exit $$typed
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

docs: $(STAMP)
	$(BIN)/python docs/api.py out/docs

# Without this the HTML would have no figures.
notebooks: $(STAMP)
	PLOTLY_RENDERER=plotly_mimetype+notebook $(BIN)/jupyter nbconvert --to html --execute --output-dir out/notebooks notebooks/*.ipynb

# A running total is kept in out/benchmarks: stopped, it goes on where it was.
bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ASKED)
