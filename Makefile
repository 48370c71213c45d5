# The README's two commands: `make demo` and `make test`. Both set everything up in .venv by themselves.
PYTHON ?= python3.11
BIN := .venv/bin
IMAGES ?=
OUT ?= demo-out

.PHONY: help setup demo test lint types unit format clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup: .venv/ready ## Make .venv with everything that development needs

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/ready ## Archive real photographs, query, restore, verify, price (IMAGES=folder OUT=folder)
	$(BIN)/python infra/demo.py --out $(OUT) $(if $(IMAGES),--images $(IMAGES))

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready
	$(BIN)/mypy

unit: .venv/ready
	$(BIN)/pytest -q -m "not chaos"

test: lint types unit ## Ruff, mypy and pytest

format: .venv/ready ## Format and fix what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove what make made
	rm -rf .venv $(OUT)
