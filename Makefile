# Everything a person types. `make` alone tells what there is; ARGS is handed on: make demo ARGS=--exit

.DEFAULT_GOAL := help

# Outside the clone, so that clones share what is built.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/sepal/target
.PHONY: help demo release test bench soak fuzz setup

help: ## Tell what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build Sepal and watch it search and hide 10,240 embeddings (ARGS=pipeline: deliver changes to a webhook)
	@./setup
	cargo run --profile demo --bin sepal -- demo $(ARGS)

release: ## Build the program to deploy, fully optimised
	@./setup
	cargo build --release --bin sepal

test: ## Build everything and run every test
	@./setup test
	cargo build --workspace
	cargo nextest run --workspace --no-fail-fast $(ARGS)
	cargo test --quiet --manifest-path sdk/rust/Cargo.toml
	cargo test --quiet --manifest-path plugins/guests/Cargo.toml --workspace

# Not --package: with fewer packages cargo turns off features, and DataFusion would be built a second time for it.
bench: ## Run the micro-benchmarks (ARGS=wal for those named so)
	@./setup
	cargo bench --workspace --bench micro $(ARGS)

# docs/reliability.md says what each of these numbers is, and how to repeat what one of them found.
soak: ## Run what must never lose a row at length, on the release build: simulation, flips, kill -9, power cuts, 1 GiB of backup
	@./setup test
	cargo build --release --workspace
	SEPAL_SIM_SEEDS=$${SEPAL_SIM_SEEDS:-10000} SEPAL_FLIPS=$${SEPAL_FLIPS:-all} \
		cargo nextest run --release --workspace --no-capture -E 'test(simulation::) | test(flips::)'
	SEPAL_CRASH_ROUNDS=$${SEPAL_CRASH_ROUNDS:-100} SEPAL_POWER_CUTS=$${SEPAL_POWER_CUTS:-200} \
		SEPAL_BACKUP_MIB=$${SEPAL_BACKUP_MIB:-1024} SEPAL_INJECTIONS=$${SEPAL_INJECTIONS:-40} \
		SEPAL_HISTORY_TRANSACTIONS=$${SEPAL_HISTORY_TRANSACTIONS:-20000} \
		cargo nextest run --release --package sepal-tests $(ARGS)

# Property tests that write a store at each case say themselves how many they run.
fuzz: ## Run all tests on the release build, property tests with 50,000 cases each
	@./setup test
	cargo build --release --workspace
	PROPTEST_CASES=50000 cargo nextest run --release --workspace $(ARGS)

setup: ## Install what is missing for all of these, nothing else
	@./setup test
