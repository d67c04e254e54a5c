# Everything runs in .venv, which `make setup` builds from uv.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
UV := $(BIN)/uv

.DEFAULT_GOAL := help
# What a target prints last is read by others: no `Leaving directory` behind it.
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-14s %s\n", $$1, $$2}'

# Compiled here, once: where nothing may be written beside the code (PYTHONDONTWRITEBYTECODE), each service would compile
# all that it imports at every start, which takes longer than the start itself.
setup: $(VENV)/.ready ## create .venv with exactly what uv.lock names
	@$(BIN)/python -m compileall -q edgeagents services toolchain

$(VENV)/.ready: uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "edgeagents needs Python 3.11 or newer, $(PYTHON) is older: make setup PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(UV) sync --frozen --all-extras --compile-bytecode --quiet
	@touch $@

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .

check: setup ## lint, types, import layers, generated code fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

proto: setup ## generate edgeagents/pb from proto/
	$(BIN)/python proto/generate.py


api-pages: setup ## write OpenAPI and AsyncAPI of all services, and a page of them, into docs/api
	$(BIN)/python -m services.api_pages $(ARGS)

diagrams: setup ## draw the protocols' state diagrams into docs/protocols.md
	$(BIN)/python -m tests.diagrams

demo: setup ## a home run by three agents and a guard, on a live page (ARGS="--help")
	@$(BIN)/python -m edgeagents.embedded.demo $(ARGS)

TO ?=
FROM ?=

backup: setup ## a gateway's state into one file: ARGS="--folder FOLDER" [TO=file.tar]; more in docs/backup.md
	@$(BIN)/edgeagents backup $(if $(TO),--to "$(TO)") $(ARGS)

restore: setup ## a backup into a stopped gateway: FROM=file.tar ARGS="--folder FOLDER [--force]"
	@test -n "$(FROM)" || { echo 'usage: make restore FROM=file.tar ARGS="--folder FOLDER [--force]"' >&2; exit 2; }
	@$(BIN)/edgeagents restore "$(FROM)" $(ARGS)

replay-demo: setup ## 1,000 decisions of a busy home, made again from its audit: are they equal?
	$(BIN)/pytest tests/scenarios/test_replay.py -m long -s $(ARGS)

test: setup ## all tests that this machine can run; says what it leaves out
	$(BIN)/pytest -m "not edgex and not long and not faults and not docker" -n auto --dist loadscope --no-loadscope-reorder $(ARGS)
	@echo "left out: the contract suite on a running EdgeX of yours (make test-edgex), faults (make test-faults)," \
	"containers (make test-compose)," \
	"all faults, minutes of load and of fuzzing (make test-long)"

FUZZ_SECONDS ?= 600
PROTOCOL_CASES ?= 3000

# One whole gateway at a time: a fault test shares its machine with nobody.
FAULTS_SEED ?= 1

test-faults: setup ## some 5 minutes of kills, stops, power cuts, full disks, clock steps: FAULTS_SEED=1
	FAULTS_ROUNDS=1 FAULTS_SEED=$(FAULTS_SEED) $(BIN)/pytest tests/faults -m "faults and not long" -n 0 -q $(ARGS)

test-long: setup ## hours: every fault 20 times, in containers too, a load (LOAD_SECONDS=600 LOAD_RATE=2000), bad input for FUZZ_SECONDS=600
	FAULTS_ROUNDS=20 FAULTS_SEED=$(FAULTS_SEED) FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest -m "faults or long" -n 0 -q $(ARGS)
	PROTOCOL_CASES=$(PROTOCOL_CASES) $(BIN)/pytest tests/unit/protocol -m society -n 0 -q $(ARGS)

MODEL := models/smollm2-135m-instruct

# The group is left out of `make setup`: its one package is 98 MB.
model-package: setup
	$(UV) sync --frozen --all-extras --group model --compile-bytecode --quiet

model: model-package ## import the default language model, every weight exact (ARGS="--quantise q8", or f32; more with --help)
	$(BIN)/python -m toolchain.export --to $(MODEL) $(ARGS)

# BASE counts only on the command line: some shells export one of their own.
images: setup ## container images of all services, at the project's version: BASE_IMAGE=python:3.11-slim-bookworm, or BASE=new
	@BASE="$(if $(findstring command,$(origin BASE)),$(BASE))" services/images.sh

test-compose: setup ## the gateway in containers: up, proven, fenced, restarted, killed, paused (builds images first)
	$(BIN)/pytest tests/docker -m "docker and not long" -n 0 -q $(ARGS)

# HOST counts only on the command line: some shells export one of their own.
EDGEX_HOST := $(if $(findstring command,$(origin HOST)),--edgex-host="$(HOST)")

test-edgex: $(if $(and $(KEEPER),$(BROKER)),setup) ## contract tests on a running EdgeX: KEEPER=http://host:59890 BROKER=nats://host:4222
	@test -n "$(KEEPER)" && test -n "$(BROKER)" || { \
	echo "usage: make test-edgex KEEPER=http://host:59890 BROKER=nats://host:4222|mqtt://host:1883" >&2; \
	echo "       [BUS=mqtt|nats-core|nats-jetstream] [HOST=where EdgeX reaches us] [EKUIPER=http://host:59720]" >&2; \
	echo "       [ARGS=pytest's]" >&2; \
	echo "more in docs/testing-against-edgex.md" >&2; exit 2; }
	$(BIN)/pytest tests/contract --keeper="$(KEEPER)" --broker="$(BROKER)" $(if $(BUS),--edgex-bus="$(BUS)") $(EDGEX_HOST) \
	$(if $(EKUIPER),--ekuiper="$(EKUIPER)") $(ARGS)

bench: setup ## run every benchmark
	@targets=$$(grep -oE '^bench-[a-z-]+' $(MAKEFILE_LIST) | sort -u); \
	if [ -z "$$targets" ]; then echo "there is no benchmark yet"; else $(MAKE) --no-print-directory $$targets; fi

bench-home: setup ## agents, best schedule and best rules run a house: cost, comfort, commands (ARGS="--seeds 2 --days 2")
	@$(BIN)/python -m tests.bench.home $(ARGS)

bench-events: setup ## events/s of an agent, event to command and to SET, beside a peer: ARGS="--peer-topic edgex/rules-events"
	@$(BIN)/python -m tests.bench.events $(ARGS)

bench-allocation: setup ## auctions, contract net and peers against the exact optimum; decisions/s (ARGS="--seeds 20")
	@$(BIN)/python -m tests.bench.allocation $(ARGS)

bench-negotiation: setup ## mediated and private negotiations beside negmas, a judge in its own process (ARGS="--domains 9")
	@$(BIN)/python -m tests.bench.negotiation $(ARGS)

bench-ask: setup ## how many labelled sentences are understood, English and Chinese (ARGS="--failures")
	@$(BIN)/python -m tests.bench.ask $(ARGS)

bench-lm: model-package ## tokens/s, first tokens and memory of the language model beside llama.cpp (ARGS="--passes 3")
	@$(BIN)/python -m tests.bench.lm $(ARGS)

bench-lm-exact: model-package ## how far next-token distributions are from 32-bit arithmetic, beside llama.cpp (ARGS="--tokens 512")
	@$(BIN)/python -m tests.bench.lm_exact $(ARGS)

bench-lm-profile: model-package ## where the time of a token goes, by operator (ARGS="--form q4"), with the models of bench-lm
	@$(BIN)/python -m tests.bench.lm_profile $(ARGS)

bench-grammar: setup ## grammars of devices: compile time, cost of masks, 10,000 answers read back (ARGS="--answers 1000")
	@$(BIN)/python -m tests.bench.grammar $(ARGS)

bench-inference: setup ## ten agents on one language model: answers/s, waits of each, memory of the gateway (ARGS="--questions 5")
	@$(BIN)/python -m tests.bench.inference $(ARGS)
bench-coordinator: setup ## awards/s, time to award, messages an award, tasks after a kill of the coordinator (ARGS="--agents 10")
	@$(BIN)/python -m tests.bench.coordinator $(ARGS)

bench-decode: setup ## µs an event from bytes to a typed event, in each encoding
	$(BIN)/python -m tests.bench.decode

.PHONY: help setup format check proto demo backup restore replay-demo test test-edgex test-faults test-long bench bench-decode \
	bench-home bench-events bench-allocation bench-negotiation bench-coordinator bench-lm bench-lm-exact bench-lm-profile bench-grammar \
	bench-inference bench-ask api-pages diagrams images model model-package test-compose
