# Every task of the project. `make help` lists them.

SHELL := bash
# A failure of any program in a pipe fails the line.
.SHELLFLAGS := -e -o pipefail -c

CARGO ?= cargo
FOOTAGE := .cache/footage
# The debug build, for tests that cargo does not run.
SPOOL = $$(realpath $${CARGO_TARGET_DIR:-target}/debug/spool)
# nextest, if it is installed: it runs each test in a process of its own, and ends tests that hang.
TEST := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo "nextest run" || echo "test")

# Crates whose unit tests do not link the engine, and the tests among them that run FFmpeg.
FFMPEG_TESTS := index::mp4::tests index::scan::tests source::probe::tests window::tests plan::args::tests cmaf::tests tools::tests as_ffmpeg_does x264
UNIT := --package spool-lints --package spool-storage --package spool-media --package spool-wire --package spool-jobs --package spool-server

.PHONY: help setup demo check unit it test test-media test-full test-deploy test-slurm chaos chaos-jobs bench bench-scale fuzz fuzz-api verify docs fmt

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: ## install missing tools and fetch the footage
	@scripts/setup
	@scripts/footage $(FOOTAGE)

demo: ## transcode real footage into out/demo and print how to play it
	@scripts/setup demo
	@scripts/footage $(FOOTAGE)
	$(CARGO) build --package spool --bin spool
	@scripts/demo $(FOOTAGE)/bigbuckbunny.mp4 out/demo

check: ## format, and lint the crates that differ from origin/main
	$(CARGO) fmt --all
	$(CARGO) run --quiet --package spool-lints
	packages=$$(scripts/changed-packages); [ -z "$$packages" ] || $(CARGO) clippy $$packages --all-targets -- --deny warnings

unit: ## unit tests without FFmpeg, browser and engine: seconds, once built
	$(CARGO) test $(UNIT) --lib -- $(addprefix --skip ,$(FFMPEG_TESTS))

it: ## one whole-system test: T=name, and F=file (of tests/tests) to build that file alone
	@[ -n "$(T)" ] || { echo "usage: make it T=name [F=file]" >&2; exit 2; }
	$(CARGO) build --package spool --bin spool
	$(CARGO) test --package spool-tests $(if $(F),--test $(F),--tests) -- --nocapture $(T)

test: setup ## everything: unit, SQL, whole-system and browser tests
	@scripts/browser-setup
	@scripts/python-setup .cache/python tests/clients/requirements.txt
	@rm -f .cache/skipped-tests
	$(CARGO) build --workspace --all-targets
	$(CARGO) $(TEST) --workspace
	@[ ! -e .cache/skipped-tests ] || { sort -u .cache/skipped-tests; echo "$$(sort -u .cache/skipped-tests | wc -l) tests were skipped: they lack a privilege"; }

test-media: ## the video domain alone: seconds, without the engine
	$(CARGO) $(TEST) --package spool-media

test-deploy: setup ## the Helm chart, the cluster on Jetstream2, images and packages, on one machine (half an hour)
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

test-full: test test-deploy test-slurm chaos chaos-jobs fuzz-api ## all tests, and the long forms: every source of docs/sources.md, uploads of 200 MB, a source of 2 GB, 50 rounds of chaos, 200 kills
	SPOOL_TEST_FULL=1 $(CARGO) test --workspace --test sources --test player --test uploads
	scripts/big-source

chaos: setup ## inject N faults into busy clusters, drain N executors, stop a scheduler for a minute
	$(CARGO) build --workspace --all-targets
	SPOOL_CHAOS_ROUNDS=$(or $(N),50) $(CARGO) test --workspace --test chaos -- --nocapture
	SPOOL_DRAINS=$(or $(N),100) $(CARGO) test --workspace --test cluster draining_executors_one_by_one -- --nocapture
	SPOOL_OUTAGE_SECONDS=60 $(CARGO) test --workspace --test cluster a_restarted_scheduler -- --nocapture

chaos-jobs: setup ## kill API servers, schedulers, executors and PostgreSQL N times during fifty jobs; send a thousand uploads at once
	$(CARGO) build --workspace --all-targets
	SPOOL_CHAOS_KILLS=$(or $(N),200) SPOOL_CHAOS_JOBS=50 $(CARGO) test --workspace --test chaos_jobs -- --nocapture
	SPOOL_LOAD_UPLOADS=1000 $(CARGO) test --workspace --test load -- --nocapture

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

fuzz: ## fuzz the parsers of untrusted bytes, each of four targets for S seconds (half an hour; two hours in all)
	@scripts/fuzz-setup
	scripts/fuzz $(or $(S),1800)

fuzz-api: setup ## send the HTTP API valid and invalid requests by its OpenAPI document, for S seconds (a quarter of an hour)
	$(CARGO) build --workspace --all-targets
	scripts/api-fuzz $(or $(S),900) $(SPOOL)

verify: ## formatting, architecture, words, lints, documentation, features, licences, spelling
	@scripts/verify-setup
	$(CARGO) fmt --all --check
	$(CARGO) run --quiet --package spool-lints
	$(CARGO) hakari generate --diff
	$(CARGO) hakari manage-deps --dry-run
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	$(CARGO) deny check bans licenses sources
	typos

docs: ## generate docs/functions.md, docs/sources.md and docs/openapi.json
	SPOOL_WRITE_DOCS=1 $(CARGO) test --workspace --test reference
	SPOOL_WRITE_DOCS=1 $(CARGO) test --workspace --test sources the_docs
	SPOOL_WRITE_DOCS=1 $(CARGO) test --workspace --test openapi

fmt: ## format the code
	$(CARGO) fmt --all
