# The verbs are the same everywhere: demo, test, check, fmt, bench, mutants, fuzz.
# `make demo` and `make test` install what is missing from the lock files, under node_modules and target.

DEV := --features cohort-cli/dev,cohort-agent/dev,cohort-kms/dev,cohort-attestation/dev-platform
FORGE := script/forge

.PHONY: bench-agent bench-indexer bench-kms bench-gas bench bench-races prove prove-mutants slither bench-seal fuzz demo test test-console build console contracts check fmt mutants prerequisites
.DEFAULT_GOAL := build

## One study end to end on this machine; KEEP=1 leaves the services running.
demo: build
	@target/debug/cohort dev demo $(if $(KEEP),--keep)

## Everything: Solidity, Rust, end to end, Python.
test: build
	$(FORGE) test
	@echo "== scripts: each against a chain of its own, and every mistake"
	@node --test test/script/scripts.test.js
	@script/python-env || [ $$? = 3 ]
	cargo test --locked --workspace $(DEV)
	@script/docs
	@echo "== Python: the formats, by a second implementation"
	script/python-tests
	@$(MAKE) --no-print-directory test-console
	@echo "== production build: no development root can be loaded"
	cargo test --locked -p cohort-kms -p cohort-attestation

## The console: formats against the vectors, then every way to approve, in a real browser against a real stack.
test-console: build
	@echo "== console: formats against the vectors"
	@npm --prefix console test
	@echo "== console: in Chromium, against the real stack"
	@npm --prefix console run e2e

build: contracts console
	@echo "== Rust: services and tools (the first time takes some minutes)"
	cargo build --locked --workspace $(DEV)

## Before the indexer, which has console/dist inside.
console: console/node_modules/.package-lock.json
	@echo "== console: web pages"
	@test -d console/dist || touch indexer/build.rs # what was built without the pages is built anew
	@npm --prefix console run --silent build

console/node_modules/.package-lock.json: console/package.json console/package-lock.json | prerequisites
	@echo "== npm: the console's tools, as locked"
	@npm --prefix console ci --no-fund --no-audit
	@touch $@

contracts: node_modules/.package-lock.json
	@echo "== Solidity: contracts"
	@$(FORGE) build --skip test

node_modules/.package-lock.json: package.json package-lock.json | prerequisites
	@echo "== npm: Foundry, solc, OpenZeppelin, as locked"
	@npm ci --no-fund --no-audit
	@touch $@

prerequisites:
	@script/prerequisites

## What a contributor runs before a commit.
check: contracts
	cargo fmt --all --check
	$(FORGE) fmt --check
	cargo clippy --locked --workspace --all-targets $(DEV) -- -D warnings
	cargo clippy --locked -p cohort-cli --features ledger -- -D warnings
	cargo test --locked --workspace $(DEV) --quiet --test reference --test openapi
	cargo test --locked --workspace $(DEV) --quiet --lib --test indexer committed
	script/docs
	script/spelling
	script/dependencies

fmt: contracts
	cargo fmt --all
	$(FORGE) fmt

## NVIDIA's own reference manifests, for the tests that read them (they skip where these are absent).
.PHONY: nvidia-rims
nvidia-rims:
	@script/nvidia-rims

## Named faults in the contracts; each must be caught by the tests.
mutants: contracts
	script/mutants

## Properties proved for all inputs, with halmos: some two minutes. Then: does each fail on a broken contract?
prove: contracts
	script/prove

prove-mutants: contracts
	script/prove --mutants

## Static analysis of the contracts; every finding is answered in test/golden/slither.json.
slither: contracts
	script/slither

## All benchmarks there are.
bench: bench-seal bench-gas bench-indexer bench-kms bench-agent

## Sealing and opening 1 GiB against cat and age (Debian: apt-get install age), and memory on 8 GiB; for a quiet machine.
bench-seal:
	cargo build --locked --release -p cohort-protocol --example sealed_bench
	@target/release/examples/sealed_bench

## The KMS under load beside the bare quote verification, memory under a million challenges, and a flood; some two minutes.
bench-kms: contracts
	cargo build --locked --release -p cohort-indexer -p cohort-kms --features cohort-kms/dev --bin cohort-indexer --bin cohort-kms --example kms_bench
	@target/release/examples/kms_bench

## The study on 1.6 million sealed patients of four hospitals, in seconds; then
## 78 million sealed transactions of six banks to a guarded aggregate, beside DataFusion on the same rows in clear. The first build of
## the query engine takes a quarter of an hour; BENCH_ROWS=1000000 takes fewer rows, BENCH_FOLDER another disk than target's.
bench-agent:
	@cargo bench --locked -p cohort-agent --bench agent

## Gas of approvals and of a revocation beside a Safe's, in the same run; fetches the Safe's bytecode from npm.
bench-gas: contracts
	@script/bench-gas

## The indexer beside Ponder (from npm) and beside a bare download, on 800,000 events; some ten minutes on a quiet machine.
## BENCH_SCALE=0.05 takes a twentieth of the blocks. Needs PostgreSQL (Debian: apt-get install postgresql).
bench-indexer: contracts
	@FOUNDRY_PROFILE=bench $(FORGE) build
	@cargo bench --locked -p cohort-indexer --bench indexer

## 1,000 revocations racing releases on anvil, with slow endpoints, a stopped indexer and reorganisations; some ten minutes.
bench-races: contracts
	COHORT_RACES=1000 cargo test --locked --workspace $(DEV) --test chain no_release -- --nocapture

## Coverage-guided fuzzing of the parsers; SECONDS for each of them.
fuzz:
	script/fuzz $(or $(SECONDS),10)
