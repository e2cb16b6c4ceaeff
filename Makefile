# Needs Python 3.11 or newer, make and a package index. `make run PORT=8001 DEMO_TASKS=10000` (the port, and how
# many tasks the demo has), `make test ARGS="-k links"`.

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)) python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock"

.PHONY: run test lint format lock bench

run: $(INSTALLED)
	@$(BIN)/python -m app.dev.run

test: $(INSTALLED)
	@chromium=$$($(BIN)/python -m app.dev.chromium) && CHROMIUM=$$chromium $(BIN)/python -m pytest -n auto $(ARGS)

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks $(ARGS)

# The newest versions that fit: `make lock`; one package only: `make lock ARGS="--upgrade-package flask"`.
lock: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOCK) $(or $(ARGS),--upgrade) --output-file requirements.txt requirements.in
	@$(LOCK) $(or $(ARGS),--upgrade) --output-file requirements-dev.txt requirements-dev.in

$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -I app/dev/install.py $(or $(MAKECMDGOALS),run)
