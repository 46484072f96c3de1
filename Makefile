# One door to everything a developer does here. `make` alone explains.

# Build output lives in a cache outside the checkout, so that a fresh clone rebuilds quickly. A
# CARGO_TARGET_DIR of your own wins, and `cargo` by hand keeps using ./target.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE)/tidegate/target

# One profile for everything: what a run has compiled, the tests, the lints and the docs use again.
# `--workspace` everywhere, as another selection of packages may ask for other features of a
# dependency and would compile it twice.
PROFILE := --release
ALL := $(PROFILE) --workspace

.DEFAULT_GOAL := help
.PHONY: help setup demo kafka test sim chaos chaos-kafka s3 golden bench lint docs format clippy tests house-rules deny

# The steps of `test` and `lint` are meant to run in the order in which they are written.
.NOTPARALLEL:

help: ## Explain the targets (this text)
	@echo 'Tidegate: make TARGET, where TARGET is one of'
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Build output: $(CARGO_TARGET_DIR)   (set CARGO_TARGET_DIR to choose another)'

setup: ## Install the tools that are missing, naming each; silent when all is there
	@.ci/setup

demo: setup ## Run the flights job on a bundled month of real data and compare with its answer
	@.ci/demo

kafka: setup ## Start an Apache Kafka broker on localhost:9092 (.ci/kafka stop ends it)
	@.ci/kafka

test: setup format clippy docs s3 tests ## Everything CI checks: format, clippy, all tests with the house rules, docs

sim: setup ## Simulate checkpoints and recovery under crashes: SEEDS=n of them, from SEED=s on
	@SEEDS='$(SEEDS)' SEED='$(SEED)' .ci/sim

chaos: setup ## Kill running jobs at random moments, KILLS=n times, and compare their output with a run without kills
	@KILLS='$(KILLS)' SEED='$(SEED)' .ci/chaos

chaos-kafka: setup ## Kill a job between two Kafka topics, KILLS=n times, and the broker, BROKER_KILLS=n times
	@KILLS='$(KILLS)' SEED='$(SEED)' BROKER_KILLS='$(BROKER_KILLS)' .ci/chaos-kafka

bench: setup ## Measure the NEXMark queries against bare loops, and against other engines where they are prepared
	"$$(.ci/example nexmark)" --bench
	@.ci/bench-peers

lint: setup format clippy house-rules deny ## Format, clippy, house rules, and cargo-deny where it is installed

docs: setup ## Build the API documentation; a warning is an error
	RUSTDOCFLAGS='-D warnings' cargo doc $(ALL) --no-deps

format: setup ## Check the formatting (cargo fmt --all mends it)
	cargo fmt --all --check

clippy: setup ## Run clippy on all targets; a warning is an error
	cargo clippy $(ALL) --all-targets -- -D warnings

tests: setup ## Run all tests, among them the house rules and the examples in the docs
	@.ci/tests

house-rules: setup ## Run only the house rules: integration-tests/tests/house_rules.rs
	cargo test $(ALL) --test house_rules

deny: setup ## Check the dependencies' licences and advisories with cargo-deny, if it is installed
	@.ci/deny

s3: setup ## Test checkpoints in S3 against a server of this machine (moto, installed into the cache)
	@.ci/s3

golden: setup ## Make a golden savepoint of today's format, NAME=n; see integration-tests/tests/golden/README.md
	TIDEGATE_GOLDEN_KIND='$(KIND)' TIDEGATE_GOLDEN='$(or $(NAME),$(error name it: make golden NAME=0.2.0))' cargo test $(ALL) --test savepoints -- --ignored make_golden
