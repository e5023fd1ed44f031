# `make` lists the targets. Each sets itself up: nothing but python3.11+, make and a C++ compiler is asked for.

.DEFAULT_GOAL := help
.PHONY: help setup lock asyncapi demo up test chaos soak fuzz lint type check audit bench build clean

# More arguments for pytest, uv or a script: `make test ARGS="tests/unit -x"`, `make lock ARGS=--upgrade`.
ARGS ?=

BIN := .venv/bin
LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" $(ARGS)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with the locked dependencies; names what is missing on the machine
	@scripts/setup.sh

lock: setup ## Resolve the dependencies again into the requirements*.lock files; ARGS=--upgrade for newer versions
	$(LOCK) producer/pyproject.toml index_store/pyproject.toml worker/pyproject.toml --all-extras \
		--group pyproject.toml:dev --group pyproject.toml:demo \
		--no-emit-package nearmq --no-emit-package nearmq-index-store --no-emit-package nearmq-worker \
		-o requirements.lock
	$(LOCK) producer/pyproject.toml index_store/pyproject.toml worker/pyproject.toml --all-extras -c requirements.lock \
		--no-emit-package nearmq --no-emit-package nearmq-index-store --no-emit-package nearmq-worker \
		-o requirements-image.lock
	$(LOCK) --group pyproject.toml:bench -c requirements.lock -o requirements-bench.lock
	$(LOCK) --group pyproject.toml:fuzz -c requirements.lock -o requirements-fuzz.lock
	$(LOCK) --group pyproject.toml:audit -c requirements.lock -o requirements-audit.lock
	$(LOCK) build.in -c requirements.lock -o requirements-build.lock
	$(LOCK) uv.in -o requirements-uv.lock

asyncapi: setup ## Write docs/asyncapi.yaml again, of the code and docs/wire.md
	@$(BIN)/python -m scripts.asyncapi

demo: setup ## Search handwritten digits with every index: no server needed, or through NEARMQ_URL and NEARMQ_STORE
	@$(BIN)/python examples/demo.py $(ARGS)

up: ## Start RabbitMQ, Redis and a worker with docker compose, and wait until they are healthy
	@docker compose version >/dev/null 2>&1 || { echo "make up needs docker with its compose plugin" >&2; exit 1; }
	docker compose up --detach --build --wait $(ARGS)

test: setup ## Run every test, with real servers: configured, private, or installed
	@$(BIN)/python -m tests.servers
	@$(BIN)/python -m pytest $(ARGS)

chaos: setup ## Run every fault test with five seeds, and print what became of the jobs; ARGS="--seeds 1" for less
	@$(BIN)/python -m tests.servers
	@$(BIN)/python -m pytest tests/chaos -m "long or not long" --seeds 5 $(ARGS)

soak: setup ## Search 100,000 times over ten minutes while workers are killed; ARGS="--minutes 1 --jobs 10000" for less
	@$(BIN)/python -m tests.chaos.soak $(ARGS)

fuzz: ## Look for inputs that end in anything but a clean error, 60 s a target; ARGS="job --seconds 600" for one
	@scripts/setup.sh fuzz
	@$(BIN)/python -m tests.fuzz $(ARGS)

lint: setup ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

type: setup ## Check the types
	@$(BIN)/mypy

check: lint type ## Check everything that needs no server: style, types, import arrows, compose file, names
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@if docker compose version >/dev/null 2>&1; then docker compose config --quiet; fi
	@scripts/check_names.sh

audit: ## Compare the locked dependencies with the known advisories, and list them in out/*.cdx.json (CycloneDX)
	@scripts/setup.sh audit
	@scripts/audit.sh

bench: ## Measure beside raw hnswlib, faiss, echoes, Celery, dramatiq and milvus-lite: 20 minutes; ARGS=--quick: 2
	@scripts/setup.sh bench
	@$(BIN)/python -m tests.servers
	@$(BIN)/python -m benchmarks $(ARGS)

build: setup ## Build wheels and source distributions of the three packages into dist/
	@for member in producer index_store worker; do \
		$(BIN)/uv build -q --no-build-isolation --python $(BIN)/python $$member --out-dir dist || exit 1; \
	done; ls dist

clean: ## Remove what the other targets made, .venv included
	rm -rf .venv dist out .fuzz .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
