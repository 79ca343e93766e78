# `make demo` and `make test` do everything on a fresh Debian-like machine, and reuse it all the next time.
.DEFAULT_GOAL := help
.PHONY: help demo test unit rooms e2e attack bench lint dev setup schemas lock docs-check clean

PY ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Tests start the program a thousand times: it is compiled once.
unexport PYTHONDONTWRITEBYTECODE
STAMP := .venv/.stamp

help: ## show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: setup ## run examples/distill for real, and show what it made
	$(BIN)/casemate run examples/distill/workflow.yaml
	@$(BIN)/python examples/distill/show.py

test: lint unit rooms e2e attack ## everything that CI runs

unit: dev ## the host's tests, no container (under a minute)
	$(BIN)/python -m pytest tests/policies tests/sandbox -n 2

rooms: setup ## the tests of what ships in images, in an image
	$(BIN)/python -m tests.rooms

e2e: setup ## whole runs in real cells
	$(BIN)/python -m pytest tests/e2e -m "not alone" -n 2 --dist worksteal
	$(BIN)/python -m pytest tests/e2e -m alone

attack: setup ## attacks from inside a cell, each with its control
	$(BIN)/python -m pytest tests/attack -m "not alone" -n 2 --dist loadfile
	$(BIN)/python -m pytest tests/attack -m alone

bench: setup ## the compiler by size, the doors, the gateway and customs beside others; ten minutes of fuzzing of the compiler and of each door
	$(BIN)/python -m tests.bench.compiler
	$(BIN)/python -m tests.bench.doors
	$(BIN)/python -m tests.bench.tools
	$(BIN)/python -m tests.bench.leaks
	$(BIN)/python -m tests.rooms run tests.bench.customs 2000000
	$(BIN)/python -m tests.bench.fuzz_source 600
	$(BIN)/python -m tests.rooms run tests.proxy.fuzz egress 600
	$(BIN)/python -m tests.rooms run tests.proxy.fuzz llm 600

lint: dev ## ruff, mypy strict, room contracts, documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

dev: $(STAMP) ## the environment, from the lock file

$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PY)" || { echo "CSM-R017: Python 3.11 or later with venv is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "· creating .venv with $(PY)"
	$(PY) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: dev ## environment, Docker engine, trusted images
	@$(BIN)/casemate doctor --fix

schemas: dev ## generate the JSON Schemas from their types
	$(BIN)/python -m tests.schemas

lock: dev ## resolve the lock files anew
	$(BIN)/python -m tests.lock

docs-check: dev ## documents against the code
	$(BIN)/python -m pytest tests/docs

clean: ## remove what runs and builds left in this folder
	rm -rf .venv .casemate build dist examples/*/.casemate examples/*/out
