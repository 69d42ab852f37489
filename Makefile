# lycoris: build, demo, checks. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Packages without C code: the race detector runs on these.
RACE := ./internal/config ./internal/runs ./internal/ui ./internal/dataset ./internal/tensor

.PHONY: help setup build demo test check vet fmt lint race nocgo bench goldens replay bench-peft bench-lycoris bench-tools consumers fuzz cover clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: ## install a C compiler if there is none (Debian, Ubuntu)
	@command -v $${CC:-cc} >/dev/null || ./scripts/install-cc.sh

build: setup ## build bin/lycoris
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/lycoris ./cmd/lycoris

demo: build ## train an adapter on photographs that ship here, in a minute
	./demo/demo.sh

test: setup check ## everything .ci/run runs: checks, then all tests
	$(GO) test -timeout 20m ./...
	@$(MAKE) --no-print-directory cuda-test-if-headers

check: vet fmt lint race nocgo ## the checks that come before the tests

vet: ## go vet
	$(GO) vet ./...

fmt: ## fail if gofmt would change a file
	@bad=$$(git ls-files '*.go' | xargs gofmt -l); if [ -n "$$bad" ]; then echo "gofmt would change:"; echo "$$bad"; exit 1; fi

lint: ## staticcheck
	$(GO) run $(STATICCHECK) ./...

race: ## the race detector on the packages without C
	$(GO) test -race -timeout 10m $(RACE)

nocgo: ## the build without cgo compiles
	CGO_ENABLED=0 $(GO) build ./...

bench: ## kernel benchmarks
	$(GO) test -run '^$$' -bench . -benchtime 0.5s ./internal/kernels/cpu

goldens: ## make the goldens again with the Python originals and compare (needs Python)
	test -d .venv || { python3 -m venv .venv && .venv/bin/pip install -q -r scripts/goldens/requirements.txt && .venv/bin/pip install -q --no-deps open_clip_torch==3.3.0; }
	.venv/bin/python scripts/goldens/check.py

replay: build ## replay whole runs of the Python stack and compare step by step (needs `make goldens` once)
	.venv/bin/python scripts/goldens/run_replay.py

bench-peft: build ## a full-size step, ours and peft's alternately (needs `make goldens` once)
	test -f bench/out/sd15-random.safetensors || { mkdir -p bench/out && $(GO) run ./scripts/fullsize bench/out/sd15-random.safetensors; }
	.venv/bin/python bench/run.py --model bench/out/sd15-random.safetensors

bench-lycoris: build ## a full-size step of every algorithm, ours and LyCORIS's alternately; ARGS="--rows lora,loha --ours-only" (needs `make goldens` once)
	test -f bench/out/sd15-random.safetensors || { mkdir -p bench/out && $(GO) run ./scripts/fullsize bench/out/sd15-random.safetensors; }
	.venv/bin/python bench/algos.py $(ARGS)

bench-tools: build ## merge, extract and resize of full-size models beside a copy and the Python tools; ARGS="--ours-only --rows merge-lora" (docs/benchmarks.md)
	.venv/bin/python bench/tools.py $(ARGS)

consumers: build ## what diffusers and lycoris-lora make of merged models and of adapters (needs `make goldens` once)
	.venv/bin/python scripts/goldens/merged.py
	.venv/bin/python scripts/goldens/lycoris_files.py

fuzz: ## every fuzz target for ten seconds
	@for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p 2>/dev/null | grep '^Fuzz'); do echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 10s $$p || exit 1; done; done

cover: ## test coverage by package
	$(GO) test -cover ./...

clean: ## remove what was built
	rm -rf bin demo-run build

# The build with CUDA.
include cuda.mk
