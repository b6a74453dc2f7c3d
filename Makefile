# `make demo` shows the main job on a fresh machine, `make test` checks everything.
CARGO ?= cargo
FEATURES = --features hyperrag-model/real-model
HYPERRAG = target/release/hyperrag
export RUSTDOCFLAGS = -D warnings

.PHONY: help build demo test lint deny unit docs model python services test-gemma writers torture test-services asan fuzz cuda tiny gpu compare tiers scale workers kernels prerequisites clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

prerequisites:
	@for tool in $(CARGO) cc python3; do command -v $$tool >/dev/null || \
	  { echo "hyperrag needs $$tool: install rustup's cargo, gcc, make and python3 with pip" >&2; exit 1; }; done
	@python3 -I -m pip --version >/dev/null 2>&1 || { echo "python3 has no pip: install python3-pip" >&2; exit 1; }

build: prerequisites ## compile the program
	$(CARGO) build --release --locked

model: build ## fetch SmolLM2-135M (90 MB, into HYPERRAG_HOME or ~/.cache/hyperrag)
	$(HYPERRAG) model pull smollm2-135m

demo: model ## build a store of testdata/ with SmolLM2-135M, ask, compare reuse with recompute
	$(HYPERRAG) build testdata/corpus.parquet --store target/demo
	$(HYPERRAG) query --store target/demo -k 5 "How do bees get through the cold months?"
	$(HYPERRAG) query --store target/demo -k 5 "Why did my bread turn out flat and heavy?"
	$(HYPERRAG) query --store target/demo -k 5 "I can't get into my account any more"
	$(HYPERRAG) bench --store target/demo --queries testdata/queries.jsonl --query-count 1

test: lint unit docs ## all checks: formatting, lints, tests (tiny and real model), documentation

lint: prerequisites
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets $(FEATURES) -- -D warnings
	$(CARGO) clippy --release --locked -- -D warnings # as `make build` compiles it, without candle
	scripts/build-cuda.sh --check
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --locked check licenses bans sources; else \
	  echo "licences are not checked: make deny installs what checks them"; fi

# Not a part of `make test` where it is not installed: to compile it takes longer than the program.
deny: prerequisites ## check licences, sources and known advisories of all packages; installs cargo-deny
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny@0.20.2
	$(CARGO) deny --locked check

unit: model python services
	HYPERRAG_SERVICES=$(SERVICES_HOME) $(CARGO) test --release --locked --workspace $(FEATURES)

test-gemma: build ## fetch Gemma 3 270M (250 MB) and compare it with transformers; build, query and bench with it
	$(HYPERRAG) model pull gemma3-270m
	$(CARGO) test --release --locked --workspace $(FEATURES) --test gemma3 -- --ignored --nocapture
	rm -rf target/gemma
	$(HYPERRAG) build testdata/corpus.parquet --store target/gemma --model gemma3-270m
	$(HYPERRAG) info --store target/gemma --model gemma3-270m
	$(HYPERRAG) query --store target/gemma --model gemma3-270m -k 3 "How do bees get through the cold months?"
	$(HYPERRAG) bench --store target/gemma --model gemma3-270m --queries testdata/queries.jsonl --query-count 1

python: target/python/installed ## a Python with numpy, ir-measures, cwl-eval and kubernetes-validate, in target/, for tests
target/python/installed: Makefile | prerequisites
	@command -v perl >/dev/null || { echo "the tests need perl: gdeval of ir-measures is written in it" >&2; exit 1; }
	python3 -m venv target/python
	target/python/bin/pip install -q --disable-pip-version-check numpy==2.4.6 \
	  ir-measures==0.4.3 pytrec-eval-terrier==0.5.11 cwl-eval==1.0.12 kubernetes-validate==1.37.0
	touch $@

writers: build tiny target/writers/installed ## read back what pandas, polars, DuckDB, pyarrow, fastparquet and datasets write
	$(CARGO) build --release --locked -p hyperrag-corpus --example documents
	target/writers/bin/python scripts/writers.py target/release/examples/documents $(HYPERRAG) target/tiny/llama3.gguf

target/writers/installed: Makefile | prerequisites
	python3 -m venv target/writers
	target/writers/bin/pip install -q --disable-pip-version-check pandas==3.1.1 polars==2.1.0 duckdb==2.0.1 \
	  pyarrow==26.0.1 fastparquet==2026.9.0 datasets==5.2.0
	touch $@

torture: ## damage a store in every way that is listed, count what is noticed (minutes; SEED=N)
	TORTURE=full $(CARGO) test --release --locked --test torture
	TORTURE=full $(CARGO) test --release --locked --workspace $(FEATURES) --test store faulty_tiers -- --nocapture

SERVICES_HOME = $(CURDIR)/target/services
services: prerequisites ## fetch Redis, Valkey, SeaweedFS, Slurm and GNU parallel into target/services, without root
	scripts/services.sh install

# With all features, as `make unit` compiled it.
test-services: model python services ## the part of `make test` that needs servers; SERVICES=full reads more
	HYPERRAG_SERVICES=$(SERVICES_HOME) $(CARGO) test --release --locked --workspace $(FEATURES) \
	  --test redis --test lag --test network --test object
	HYPERRAG_SERVICES=$(SERVICES_HOME) $(CARGO) test --release --locked --workspace $(FEATURES) --test cli -- \
	  services:: deploy:: a_bucket_is_a_place redis_is_a_place

asan: prerequisites ## run the kernels' tests under AddressSanitizer (minutes; target/asan)
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan $(CARGO) test --release --locked \
	  --target x86_64-unknown-linux-gnu -p hyperrag-kernels -p hyperrag-model --lib --test op_suite --test tiny

SECONDS ?= 60
fuzz: prerequisites ## fuzz every parser for SECONDS (60) each; needs `cargo install cargo-fuzz`
	FUZZ_SEEDS=$(CURDIR)/fuzz/corpus $(CARGO) test --release --locked -p hyperrag-store --test store fuzz
	FUZZ_SEEDS=$(CURDIR)/fuzz/corpus $(CARGO) test --release --locked -p hyperrag-model --test tiny fuzz
	FUZZ_SEEDS=$(CURDIR)/fuzz/corpus $(CARGO) test --release --locked -p hyperrag-corpus -p hyperrag-eval --test fuzz
	cd fuzz && for target in fuzz_targets/*.rs; do \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$(basename $$target .rs) -- -max_total_time=$(SECONDS) -rss_limit_mb=512 || exit 1; done

docs:
	$(CARGO) doc --release --locked --workspace --no-deps --document-private-items

cuda: prerequisites ## compile target/cuda/release/hyperrag, for machines with and without a GPU
	scripts/build-cuda.sh

TINY = llama3 mistral qwen2 qwen3 gemma gemma2 gemma3 gemma3-linear
tiny: prerequisites ## write tiny models of the other architectures to target/tiny, for `make gpu`
	mkdir -p target/tiny
	for name in $(TINY); do $(CARGO) run --quiet --release --locked -p hyperrag-model --example tiny_model -- \
	  target/tiny/$$name.gguf --model $$name || exit 1; done

gpu: ## on a machine with a GPU: compare scores, time everything; JSON in OUT (default target/gpu)
	scripts/gpu.sh

compare: model target/peers/venv/installed ## measure against transformers and llama.cpp on this machine (an hour); target/compare.json
	scripts/compare.py

tiers: model ## measure queries from Redis and S3 beside the page cache on this machine (minutes); target/tiers.json
	scripts/services.sh install
	$(CARGO) build --release --locked --workspace $(FEATURES) --example redis_speed --example skew
	scripts/tiers.py

scale: prerequisites ## build stores of 10k, 100k and 1M chunks by eight processes, merge and measure them (minutes; 10 GB); target/scale.json
	$(CARGO) build --release --locked --workspace $(FEATURES) --bin hyperrag --example open_speed
	scripts/scale.py

workers: model ## measure two builders of one thread against one of two, in turns (10 minutes); target/workers.json
	scripts/workers.py

kernels: prerequisites ## time the CPU's kernels, each beside its roofline (criterion)
	$(CARGO) bench --locked --workspace --bench kernels --bench attention --bench checksum

target/peers/venv/installed: scripts/peers/requirements.txt | prerequisites
	python3 -m venv target/peers/venv
	CMAKE_ARGS=-DGGML_NATIVE=ON target/peers/venv/bin/pip install --disable-pip-version-check -r $<
	touch $@

clean: ## remove what was compiled and built here
	$(CARGO) clean
