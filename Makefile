# Everything that the continuous integration does is a target here.
SHELL := /bin/bash
.DEFAULT_GOAL := build

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/posterngate/postern/pkg/release.Version=$(VERSION)
GO      := go
BUF     := test/tools/buf/node_modules/.bin/buf
FUZZTIME ?= 5s
FAULTS_RUNS ?= 50
TRUTH ?= 15,16,17,18
DEVBUILD := echo "building (a minute or two the first time)" >&2; $(GO) build -o bin/postern-dev ./deploy/dev && $(GO) build -o bin/postern ./pkg/cmd/postern

##@ Try it

.PHONY: dev dev-up dev-down dev-reset demo
dev: ## Run the whole house in the foreground: both planes, a sample company, PostgreSQL (VAULT=1: with a real Vault)
	@$(DEVBUILD) && exec bin/postern-dev run $(if $(VAULT),--vault)
dev-up: ## The same in the background; returns once everything answers
	@$(DEVBUILD) && bin/postern-dev up $(if $(VAULT),--vault)
dev-down: ## Stop what dev-up started
	@$(DEVBUILD) && bin/postern-dev down
dev-reset: ## Stop, and forget all state of the development house
	@$(DEVBUILD) && bin/postern-dev reset
demo: ## A guided tour against the house that dev-up started (starts it if need be)
	@$(MAKE) --no-print-directory dev-up && bin/postern demo

##@ Build

.PHONY: build dist generate
build: ## Build the binaries into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./pkg/cmd/postern ./controlplane/cmd/postern-control ./dataplane/cmd/postern-node ./dataplane/cmd/postern-wall
dist: ## Build what is shipped into bin/dist: binaries, sample configurations, systemd units
	rm -rf bin/dist && mkdir -p bin/dist
	$(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/dist/ ./pkg/cmd/postern ./controlplane/cmd/postern-control ./dataplane/cmd/postern-node ./dataplane/cmd/postern-wall
	cp -r deploy/config deploy/systemd deploy/OPERATING.md LICENSE README.md bin/dist/
	cd bin/dist && sha256sum postern postern-control postern-node postern-wall > SHA256SUMS
generate: $(BUF) ## Generate code from proto/
	PATH="$$PWD/test/tools/buf/node_modules/.bin:$$PATH"; rm -rf pkg/gen && \
	buf generate --template proto/buf.gen.yaml && \
	buf generate --template proto/buf.gen.node.yaml --path proto/postern/node && \
	buf generate --template proto/buf.gen.api.yaml --path proto/postern/api && \
	buf build --path proto/postern/types/v1/object.proto --exclude-imports --as-file-descriptor-set -o pkg/object/fields/object.binpb

##@ Check

.PHONY: test check lint vet arch proto-check generate-check fuzz faults truth mutations truth-fuzz answers holes suites test-goroutines simulate
test: ## All tests with the race detector; installs and builds what is missing
	$(GO) test -race -timeout 20m ./...
check: vet lint arch proto-check generate-check ## Everything but the tests
vet: ## go vet and gofmt
	$(GO) vet ./...
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v '^pkg/gen/')); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }
lint: ## golangci-lint, built from test/tools/lint
	$(GO) -C test/tools/lint build -o $$PWD/bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint run ./...
arch: ## The import rules and habits of ARCHITECTURE.md
	$(GO) test -count=1 ./test/arch
proto-check: $(BUF) ## The API definitions: style, and compatible with the committed image
	$(BUF) lint
	$(BUF) breaking --against proto/baseline.binpb
generate-check: generate ## Generated code is what proto/ says
	@git diff --exit-code --stat -- pkg/gen pkg/object/fields/object.binpb || { echo "what is generated differs from proto/: run make generate and commit"; exit 1; }
fuzz: ## Every fuzz target for FUZZTIME (default 5s)
	test/fuzz.sh $(FUZZTIME)

truth: ## The catalogue of evasions through a node to two worlds, on PostgreSQL TRUTH (default 15,16,17,18)
	$(GO) test -count=1 ./test/truth/hosts
	@mkdir -p bin && $(GO) test -c -o bin/truth.test ./test/truth && cd test/truth && POSTERN_TRUTH=$(TRUTH) ../../bin/truth.test -test.v -test.timeout 60m -test.run 'TestCatalogue|TestPooled'

mutations: ## 10,000 random changes to recordings and audit log: each must be found
	POSTERN_MUTATIONS=10000 $(GO) test -count=1 -v -run TestMutations ./pkg/trail

truth-fuzz: ## Generated statements until there were TRUTH_STATEMENTS (default half a million) at each of L2 and L3; goes on where TRUTH_TALLY ended
	@mkdir -p bin && $(GO) test -c -o bin/fuzz.test ./test/twoworlds/fuzz && cd test/twoworlds/fuzz && GOGC=400 TRUTH_STATEMENTS=$(or $(TRUTH_STATEMENTS),500000) \
	  TRUTH_TALLY=$(or $(TRUTH_TALLY),testdata/tally.jsonl) TRUTH_SEED=$(or $(TRUTH_SEED),1) TRUTH_MINUTES=$(or $(TRUTH_MINUTES),1440) ../../../bin/fuzz.test -test.v -test.timeout 30h -test.run TestTally

suites: ## pgx's own tests, straight and through a node under a task that allows everything: the same must pass
	@mkdir -p bin && $(GO) test -c -o bin/suites.test ./test/suites && cd test/suites && POSTERN_SUITES=1 ../../bin/suites.test -test.v -test.timeout 60m

answers: ## ANSWERS statements (default 10000) of which is known what they use: postern audit who must tell just that
	POSTERN_TRUTH_STATEMENTS=$(or $(ANSWERS),10000) $(GO) test -count=1 -timeout 60m -v -run TestWhoIsTrue ./test/e2e/17-answers

holes: ## Opens one planted fault after the other (HOLES: those of whose names this is a part): what it names must find it
	@mkdir -p bin && $(GO) test -c -tags holes -o bin/holes.test ./test/holes && cd test/holes && ../../bin/holes.test -test.v -test.timeout 60m -test.run 'TestHoles/($(HOLES))'

faults: ## kill -9 of nodes, control planes, the index and the object store under load, FAULTS_RUNS times (default 50)
	POSTERN_LARGE=1 $(GO) test -count=1 -v -run TestInput/large ./test/e2e/04-input
	POSTERN_FAULTS_RUNS=$(FAULTS_RUNS) $(GO) test -count=1 -timeout 60m -v ./test/e2e/12-crash ./controlplane/recording ./dataplane/spool -run "Kill|Crash|Fault|Torn|Lost"

test-goroutines: ## Conformance, evasions and faults with sessions that no event loop carries
	POSTERN_TEST_LOOPS=none $(GO) test -count=1 -timeout 60m ./dataplane/engine/postgres ./test/truth ./test/e2e/01-story ./test/e2e/12-crash ./test/e2e/15-levels

simulate: ## SIMULATIONS random schedules (default 10000) of locks, cut ways, crashes and wrong clocks, in virtual time; prints the seeds that fail
	@mkdir -p bin && $(GO) test -c -o bin/simulate.test ./controlplane/api/nodeapi && cd controlplane/api/nodeapi && set -o pipefail && \
	  seq $(or $(SEED),0) 500 $$(($(or $(SEED),0) + $(or $(SIMULATIONS),10000) - 1)) | GOGC=400 POSTERN_SIMULATIONS=$$(($(or $(SIMULATIONS),10000) < 500 ? $(or $(SIMULATIONS),10000) : 500)) xargs -I{} \
	  env POSTERN_SEED={} ../../../bin/simulate.test -test.timeout 10h -test.run 'TestSimulation$$' -test.v | grep -E --line-buffered '^(---|PASS|FAIL)|schedules from|--- FAIL|simulation_test.go'

##@ Measure

.PHONY: bench bench-quick bench-full bench-rivals bench-readme bench-records bench-namespaces soak
BENCH = $(GO) build -o bin/bench ./bench && bin/bench run
bench-rivals:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then for p in pgbouncer haproxy nginx; do \
	  command -v $$p >/dev/null || PATH="$$PATH:/usr/sbin" command -v $$p >/dev/null || need="$$need $$p"; done; \
	  [ -z "$$need" ] || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$need; }; fi
bench: bench-rivals ## Measure against the goals: one cell a goal, 5 rounds of 1 s. Exit 0 met, 1 missed, 2 inconclusive
	$(BENCH) --mode standard --out bin/bench.json
bench-quick: ## The same for the goals that must hold first, 5 rounds of 0.3 s: at most 90 s
	$(BENCH) --mode quick --out bin/bench-quick.json
bench-full: bench-rivals ## Everything, 5 rounds of 2 s: at most an hour
	$(BENCH) --mode full --out bin/bench-full.json

soak: ## Mixed load for half an hour: does memory grow, do latencies, is every statement on record?
	$(BENCH) --mode soak --out bin/soak.json
bench-records: ## What recording costs: added time by mode (spool, and whole way), taking in (btree, tsvector), and answers from INDEX_ROWS statements (default 200000)
	$(GO) test -run '^$$' -bench . -benchtime 1s ./pkg/record ./dataplane/spool
	$(GO) test -run '^$$' -bench Modes -benchtime 2s ./bench/modes
	$(GO) test -run '^$$' -bench Ingest -benchtime 1s ./controlplane/recording
	$(GO) test -run '^$$' -bench Commit -benchtime 2s ./controlplane/recording/index/sqlite ./controlplane/recording/index/postgres
	POSTERN_INDEX_ROWS=$(or $(INDEX_ROWS),200000) $(GO) test -run '^$$' -bench Answers -benchtime 3x -timeout 5h ./controlplane/recording/index/sqlite ./controlplane/recording/index/postgres
bench-namespaces: ## postern bench at two nodes in network namespaces of their own, beside a node here; as root
	$(GO) test -run '^$$' -bench . -benchtime 7x ./bench/namespaces

bench-readme: ## The README's table anew from bench/results/full.json; a test holds the two together
	$(GO) build -o bin/bench ./bench && bin/bench readme bench/results/full.json

$(BUF): test/tools/buf/package-lock.json
	cd test/tools/buf && npm ci --no-audit --no-fund --silent && touch node_modules/.bin/buf

##@ Help

.PHONY: help clean
help: ## This help
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_-]+:.*?##/ {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
clean: ## Remove what was built
	rm -rf bin
