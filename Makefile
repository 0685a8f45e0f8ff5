# make demo   two short trainings on text that a dependency ships, and their table
# make test   the tests (set-up included)
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test lint
setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml
	@echo "installing torch and the rest into $(VENV), once; this takes some minutes and says nothing"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -qq --upgrade pip
	$(RUN) -m pip install -qq --editable ".[dev]"
	@# litdata's torchvision may be built for another torch; then it breaks all that imports it, and litdata needs it for images only
	@$(RUN) -c "import torchvision" 2>/dev/null || $(RUN) -m pip uninstall -qq -y torchvision
	$(RUN) -c "import lightning, litdata.streaming"
	touch $@

demo: setup
	$(RUN) experiments/reproduce.py launch demo/demo --print --jobs 2

test: setup
	$(RUN) -m pytest -n 2

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
