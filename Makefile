# make demo   runs the example project on two simulated phones
# make test   runs every test, on SQLite and PostgreSQL and with the real AppWright stack
# make check  is everything that CI runs
# Each installs what it needs.

SHELL := /bin/bash
TOOL := go tool -modfile=tools/go.mod
EXAMPLE := examples/onboarding
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: build demo test bench bench-sched bench-setup check format clean

build: ## the binary, bin/qgjob
	CGO_ENABLED=0 go build -trimpath -ldflags '-X qgjob/internal/cli.version=$(VERSION)' -o bin/qgjob ./cmd/qgjob

demo: build $(EXAMPLE)/node_modules/.package-lock.json
	scripts/need.sh adb
	scripts/demo.sh

$(EXAMPLE)/node_modules/.package-lock.json: $(EXAMPLE)/package-lock.json
	cd $(EXAMPLE) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

test: $(EXAMPLE)/node_modules/.package-lock.json
	scripts/need.sh adb gcc postgres xmllint
	$(TOOL) gotestsum --format pkgname-and-test-fails -- -race -timeout 20m ./...

bench: ## the queue beside River and the databases' own limits: half an hour
	scripts/need.sh postgres
	cd bench && go run ./cmd/queuebench

bench-sched: ## the scheduler beside its baselines, in virtual time: a minute or two
	cd bench && go run ./cmd/schedbench

bench-setup: build $(EXAMPLE)/node_modules/.package-lock.json ## a batch by stock AppWright and by qgjob, and eight phones on one worker: a quarter of an hour
	scripts/need.sh adb aapt aapt2 apksigner java
	cd bench && go run ./cmd/setupbench -page SETUP.md

check:
	@unformatted=$$($(TOOL) gofumpt -l .); if [ -n "$$unformatted" ]; then echo "not formatted (make format): $$unformatted"; exit 1; fi
	go vet ./... && cd bench && go vet ./...
	$(TOOL) staticcheck ./... && cd bench && go tool -modfile=../tools/go.mod staticcheck ./...
	$(TOOL) actionlint
	go mod tidy -diff && cd bench && go mod tidy -diff
	$(MAKE) test

format:
	$(TOOL) gofumpt -w .

clean:
	rm -rf bin .cache
