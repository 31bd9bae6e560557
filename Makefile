# Two commands need nothing but make and Python 3.11 or newer; everything else is `atelier` inside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: serve test lint benchmarks clean

serve: $(VENV)/.serve
	@$(BIN)/atelier serve $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmarks: $(VENV)/.dev
	$(BIN)/python -m tests.load.http_anomalies
	$(BIN)/python -m tests.load.item_costs
	$(BIN)/python -m tests.load.item_arrivals
	$(BIN)/python -m tests.load.item_peers
	$(BIN)/python -m tests.load.text_streams
	$(BIN)/python -m tests.load.image_mixed
	$(BIN)/python -m tests.load.image_http
	$(BIN)/python -m tests.load.image_alone
	$(BIN)/python -m tests.load.image_costs
	$(BIN)/python -m tests.load.image_peers

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Atelier needs Python 3.11 or newer; name one with PYTHON=...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)

# Installed anew when the dependencies change. No torch here: serving needs none.
$(VENV)/.serve: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Atelier into $(VENV) (once; a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Atelier and what its tests need into $(VENV) (once; some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.serve

clean:
	rm -rf $(VENV)
