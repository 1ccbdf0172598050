# Everything runs in environments made here; nothing needs to be installed by hand.
# PYTHON chooses the interpreter the environments are made with: make test PYTHON=python3.13
PYTHON ?= python3
VENV   ?= .venv
# The tests start hundreds of interpreters: what one has compiled, the others need not compile again.
unexport PYTHONDONTWRITEBYTECODE
# Tests wait more than they work: several processes, whatever the number of cores.
WORKERS ?= 5
BIN    := $(VENV)/bin
# Source of the interface for `make gen`: empty (the pinned upstream), a URL, a bare git directory, a checkout, or `wheel`.
CLOUDAPI ?=
CLOUDAPI_REF ?=
# Arguments of scripts/instrumented.py: --pinned leaves out the lowest gRPC.
INSTRUMENTED ?=
# How long `make fuzz` takes, about.
SECONDS ?= 180
# How long `make soak` takes, about.
SOAK_SECONDS ?= 600

# What the coverage depends on.
SOURCES := pyproject.toml requirements/dev.txt $(shell find src tests scripts bench examples -name '*.py')

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format unasync gen gen-check test-compat test-clients test-instrumented explore fuzz bench reliability soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt -e .
	@touch $@

demo: $(VENV)/.installed ## a unary answer, a stream, and a stream that revises itself (no account needed)
	@$(BIN)/python examples/demo.py

test: $(VENV)/.installed ## the test suite, but for what is slow
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: $(VENV)/.installed ## the slow tests: leaks, interruptions at any line, the generator, the benchmark
	@$(BIN)/python -m pytest -n $(WORKERS) -m slow

check: $(VENV)/.installed .coverage ## formatting, lint, generated code, floors, strict types, coverage of the test suite
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python scripts/unasync.py --check
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy
	@$(BIN)/coverage report

# Tracing adds a third to the time of the tests, so `make test` does without it. It is skipped if nothing has changed.
.coverage: $(SOURCES) | $(VENV)/.installed
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q -n $(WORKERS) -m "not slow"
	@$(BIN)/coverage combine -q

format: $(VENV)/.installed ## format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

unasync: $(VENV)/.installed ## write src/yandexgpt/_sync from src/yandexgpt/_async
	@$(BIN)/python scripts/unasync.py

gen: ## regenerate src/yandexgpt/_proto (CLOUDAPI=<url|directory|wheel>, CLOUDAPI_REF=<ref>)
	@$(PYTHON) scripts/gen.py --source "$(CLOUDAPI)" --ref "$(CLOUDAPI_REF)"

gen-check: ## fail if the committed stubs differ from what the pinned interface gives
	@$(PYTHON) scripts/gen.py --source "$(or $(CLOUDAPI),wheel)" --check

test-compat: ## the suite on the lowest and highest dependencies, and beside yandexcloud
	@$(PYTHON) scripts/compat.py

test-clients: $(VENV)/.installed ## other people's clients, unchanged, on the emulator, and the samples of the guides
	@$(BIN)/python scripts/clients.py

test-instrumented: $(VENV)/.installed ## the clients under opentelemetry, sentry, ddtrace, prometheus, gevent, interceptors
	@$(BIN)/python scripts/instrumented.py $(INSTRUMENTED)

explore: $(VENV)/.installed ## the tests with generated cases, on thousands of new ones (`make test` has the same each time)
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m hypothesis --hypothesis-profile=explore

fuzz: ## requests made up by machine, by REST's own OpenAPI document and by hypothesis (SECONDS=180)
	@$(PYTHON) scripts/fuzz.py --seconds $(SECONDS)

bench: $(VENV)/.installed ## what calls and streams cost, against the raw stub and other clients: writes docs/performance.md
	@$(BIN)/python bench/run.py --json .cache/bench.json --document

reliability: $(VENV)/.installed ## every fault in every phase, for both clients: writes docs/reliability.md
	@GRPC_VERBOSITY=NONE $(BIN)/python scripts/reliability.py

soak: $(VENV)/.installed ## everything at once against a service that fails at random: nothing may pile up (SOAK_SECONDS=600)
	@GRPC_VERBOSITY=NONE $(BIN)/python scripts/soak.py --seconds $(SOAK_SECONDS)

clean: ## remove environments and caches
	@rm -rf .venv .cache build dist htmlcov .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
