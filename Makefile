# Every task of the project. `make help` lists them.

SHELL := bash
# A program that fails before a pipe fails the line.
.SHELLFLAGS := -e -o pipefail -c

CARGO ?= cargo
FOOTAGE := .cache/footage
# The debug build, where others than cargo's tests start it.
SPOOL = $$(realpath $${CARGO_TARGET_DIR:-target}/debug/spool)
# nextest where it is there: it runs each test in a process of its own, and stops those that hang.
TEST := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo "nextest run" || echo "test")

.PHONY: help setup demo test test-media test-full test-deploy test-slurm chaos chaos-jobs bench bench-scale fuzz fuzz-api verify docs fmt

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: ## install what is missing and fetch the footage
	@scripts/setup
	@scripts/footage $(FOOTAGE)

demo: setup ## transcode real footage into out/demo and say how to play it
	$(CARGO) build --workspace --all-targets
	@scripts/browser-setup
	@scripts/demo $(FOOTAGE)/bigbuckbunny.mp4 out/demo

test: setup ## everything: unit, SQL, whole-system and browser tests
	@scripts/browser-setup
	@scripts/python-setup .cache/python tests/clients/requirements.txt
	$(CARGO) build --workspace --all-targets
	$(CARGO) $(TEST) --workspace

test-media: ## the video domain alone: seconds, without the engine
	$(CARGO) $(TEST) --package spool-media

test-deploy: setup ## the Helm chart, the cluster on Jetstream2, images and packages, as far as one machine can try them (half an hour)
	$(CARGO) build --workspace --all-targets
	@jetstream2/tests/setup
	@scripts/python-setup .cache/python-helm helm/tests/requirements.txt
	@scripts/python-setup .cache/python-jetstream2 jetstream2/tests/requirements.txt
	SPOOL=$(SPOOL) PYTHONPATH=.cache/python-helm python3 -B -m pytest -p no:cacheprovider -q helm/tests
	SPOOL=$(SPOOL) PYTHONPATH=.cache/python-jetstream2 python3 -B -m pytest -p no:cacheprovider -q jetstream2/tests
	SPOOL=$(SPOOL) container/tests/run
	SPOOL=$(SPOOL) packaging/tests/run

test-slurm: setup ## a real Slurm of two nodes on this machine: a node that dies, a job that is preempted, batches (a quarter of an hour)
	$(CARGO) build --workspace --all-targets
	@jetstream2/slurm/tests/setup
	SPOOL=$(SPOOL) python3 -B -m unittest discover --start-directory jetstream2/slurm/tests -v

test-full: test test-deploy test-slurm chaos chaos-jobs fuzz-api ## and what takes long: every source of docs/sources.md, uploads of 200 MB, a source of 2 GB, fifty rounds of chaos, two hundred kills
	SPOOL_TEST_FULL=1 $(CARGO) test --workspace --test sources --test player --test uploads
	scripts/big-source

chaos: setup ## do N bad things to clusters at work, drain N executors, keep a scheduler away for a minute
	$(CARGO) build --workspace --all-targets
	SPOOL_CHAOS_ROUNDS=$(or $(N),50) $(CARGO) test --workspace --test chaos -- --nocapture
	SPOOL_DRAINS=$(or $(N),100) $(CARGO) test --workspace --test cluster leave_one_after_the_other -- --nocapture
	SPOOL_AWAY=60 $(CARGO) test --workspace --test cluster scheduler_that_restarts -- --nocapture

chaos-jobs: setup ## kill servers, schedulers, executors and PostgreSQL N times while clients want fifty jobs; let a thousand uploads come at once
	$(CARGO) build --workspace --all-targets
	SPOOL_CHAOS_KILLS=$(or $(N),200) SPOOL_CHAOS_JOBS=50 $(CARGO) test --workspace --test chaos_jobs -- --nocapture
	SPOOL_CROWD=1000 $(CARGO) test --workspace --test crowd -- --nocapture

bench: setup ## measure Spool against one FFmpeg and Spark, into .cache/bench (an hour; ARGS="--sources ten-minutes" is more)
	@scripts/bench-setup
	@scripts/python-setup .cache/python-bench bench/requirements.txt
	$(CARGO) build --release --workspace --bins
	mkdir -p .cache/bench
	$${CARGO_TARGET_DIR:-target}/release/spool-bench encode --json .cache/bench/encode.json $(ARGS) | tee .cache/bench/encode.md
	$${CARGO_TARGET_DIR:-target}/release/spool-bench overhead --json .cache/bench/overhead.json | tee .cache/bench/overhead.md
	$${CARGO_TARGET_DIR:-target}/release/spool-bench scale engine --json .cache/bench/engine.json | tee .cache/bench/engine.md
	$${CARGO_TARGET_DIR:-target}/release/spool-bench predict --json .cache/bench/predict.json | tee .cache/bench/predict.md

bench-scale: setup ## measure the cluster without FFmpeg: cost per row, 1,000 jobs, 256 slots, a lost executor (three quarters of an hour)
	$(CARGO) build --release --workspace --bins
	TMPDIR=$${TMPDIR:-/dev/shm} $${CARGO_TARGET_DIR:-target}/release/spool-bench scale

fuzz: ## fuzz what reads strangers' bytes, each of four targets for S seconds (half an hour; two hours in all)
	@scripts/fuzz-setup
	scripts/fuzz $(or $(S),1800)

fuzz-api: setup ## ask the HTTP API whatever its document allows, and what it does not, for S seconds (a quarter of an hour)
	$(CARGO) build --workspace --all-targets
	scripts/api-fuzz $(or $(S),900) $(SPOOL)

verify: ## formatting, lints, documentation, licences, spelling
	@scripts/verify-setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	$(CARGO) deny check bans licenses sources
	typos

docs: ## write docs/functions.md, docs/sources.md and docs/openapi.json from what they document
	SPOOL_WRITE_DOCS=1 $(CARGO) test --workspace --test reference
	SPOOL_WRITE_DOCS=1 $(CARGO) test --workspace --test sources the_docs
	SPOOL_WRITE_DOCS=1 $(CARGO) test --workspace --test openapi

fmt: ## format the code
	$(CARGO) fmt --all
