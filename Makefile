# Every target works on a fresh machine with Python 3.11 or newer; `make` alone prints this help.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check lint format bench findings clean

help: ## Print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(READY) ## Create .venv and install everything at the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@$(BIN)/deepfer models pull onnxruntime-web >/dev/null || echo "note: without it there is no page that works in the browser (deepfer export --web)"
	@touch $@

demo: $(READY) ## The whole story on painted faces, offline, in under 3 minutes
	@$(BIN)/deepfer demo

test: $(READY) ## Run the test suite
	$(BIN)/python -m pytest -n 2

test-slow: $(READY) ## Run the slow tests: kill sweeps, soak, simulations
	$(BIN)/python -m pytest -m slow

lint: $(READY) ## Style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## What CI runs: lint, types, import contracts, tests

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## Run the quick benchmarks and print their ratios
	$(BIN)/python tests/benchmarks/startup.py

findings: ## Run every script of findings/: what outside libraries do that one would not guess (network, half an hour)
	@$(PYTHON) findings/run.py

clean: ## Remove .venv, caches and builds; runs/ and datasets/ stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
