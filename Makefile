# `make book` and `make test` do all set-up themselves: they need Python >= 3.11.5, its venv module and a network.
PYTHON ?= python3
PRESET ?= demo
export DAVID_CACHE ?= $(CURDIR)/.cache
export PIP_DISABLE_PIP_VERSION_CHECK = 1
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt
STRIP := $(BIN)/nbstripout --keep-id \
	--extra-keys "metadata.papermill metadata.language_info cell.metadata.papermill cell.metadata.execution"

.PHONY: help book pages pdf reproduce bench gpu test lint format clean
help:
	@echo "make book       run the notebooks that changed (PRESET=$(PRESET); FORCE=1: all) and build the HTML book"
	@echo "make pages      open every page of the built book in headless Chromium and test it"
	@echo "make pdf        print the built book to _build/david.pdf with headless Chromium"
	@echo "make reproduce  compute the published records anew and compare (DATASET=, UCF12=folder, ONLY=names, JOBS=1)"
	@echo "make bench      measure speed and memory into benchmarks/records (DATA=folder of videos: decoding as well)"
	@echo "make gpu        measure a GPU in minutes (DATA=folder of videos, READER=ucf101, ONLY=stages, OUT=folder)"
	@echo "make test       lint, unit tests, notebooks at their smoke defaults"
	@echo "make lint       ruff and nbstripout checks alone; make format applies them"
	@echo "make clean      delete the built book and tool caches; keeps .venv and $(DAVID_CACHE)"

book: .venv/.installed
	$(BIN)/python -m davidbook --preset $(PRESET) $(if $(FORCE),--force)

pages: .venv/.installed
	DAVID_BOOK=_build/html $(BIN)/python -m pytest tests/test_pages.py

pdf: .venv/.installed
	$(BIN)/python -m davidbook.pdf

reproduce: .venv/.installed
	$(BIN)/python -m david reproduce $(if $(DATASET),--dataset $(DATASET)) $(if $(UCF12),--videos ucf12=$(UCF12)) \
		$(if $(ONLY),--only '$(ONLY)') --jobs $(or $(JOBS),1)

bench: .venv/.installed
	export DAVID_PROGRESS=0 DAVID_LOAD=$$($(BIN)/python -c 'import os; print(os.getloadavg()[0])') && \
	for name in "distill --width 1 --compile $(if $(shell command -v c++),1,0)" stages growth $(if $(DATA),"decode --data $(DATA)"); do set -- $$name; script=$$1; shift; \
		$(BIN)/python benchmarks/$$script.py "$$@" || exit; done

gpu: .venv/.installed
	$(BIN)/python benchmarks/gpu.py --out '$(or $(OUT),benchmarks/records)' $(if $(DATA),--data '$(DATA)') \
		$(if $(READER),--reader $(READER)) $(if $(ONLY),--only $(ONLY))

test: lint
	$(BIN)/python -m pytest tests
	$(BIN)/python -m pytest --nbmake notebooks

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(STRIP) --verify notebooks/*.ipynb

format: .venv/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(STRIP) notebooks/*.ipynb

# torch goes first and alone: the index decides its build (CPU or CUDA), nothing later may replace it.
.venv/.installed: pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no '$(PYTHON)' on the path; use make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11, 5) or sys.exit("error: david needs Python >= 3.11.5 but \
	$(PYTHON) is " + sys.version.split()[0] + "; name a newer one: make PYTHON=python3.12 ...")'
	@echo "Installing into .venv: about 2 GB with a CPU build of torch, a few minutes, once."
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e '.[test]'
	@touch $@

clean:
	rm -rf _build book/notebooks .pytest_cache .ruff_cache .hypothesis
