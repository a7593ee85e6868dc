# Every command of this repository. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
# The targets share the processor cores, one cargo target folder and one cluster.
.NOTPARALLEL:

cluster := tests/kind/cluster.sh
# With find, because git refuses to read the repository of another user, as it would for root in CI.
files = $(sort $(patsubst ./%,%,$(shell find . \( -name target -o -name .git \) -prune -o -name '$(1)' -print)))
scripts = .ci/run $(call files,*.sh)
go_modules = $(patsubst %/,%,$(dir $(call files,go.mod)))
# Components cannot be rendered alone: tests/chart renders them in overlays.
overlays = $(filter-out deploy/kustomize/components/%,$(patsubst %/,%,$(dir $(call files,kustomization.yaml))))
# go vet of the excluded modules would analyse all of Kubernetes, for eight minutes, or cert-manager; the compiler
# checks their few lines anyway, and go test vets the control plane. tests/kind, tests/chart and tests/prometheus only pin
# programs, as bench/peer does.
go_vetted = $(filter-out tests/cluster/kubernetes tests/cert-manager tests/kind tests/chart tests/prometheus bench/peer,$(go_modules))
cargo_deny = "$$(deploy/cargo-tool.sh cargo-deny 0.20.2)/cargo-deny" --locked check
fuzz_folder := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/acr-pull-webhook/fuzz
fuzz_targets = $(shell sed -n 's/^name = "\([a-z_]*\)"$$/\1/p' fuzz/Cargo.toml)
# More than can run: each thread starts its next test while processors are idle (tests/testkit/src/concurrency.rs).
export RUST_TEST_THREADS ?= $(shell echo $$((4 * $$(getconf _NPROCESSORS_ONLN))))
actionlint := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
terraform_config_inspect := github.com/hashicorp/terraform-config-inspect@v0.0.0-20260904064934-75d64de68c31

##@ Try it

.PHONY: demo
demo: ## Pull a private image without and with the annotation, on a local kind cluster
	@tests/e2e/demo.sh

##@ Test it

.PHONY: test
test: check-cluster programs ## All tests: unit, integration and end-to-end
	@tests/run.sh

.PHONY: unit
unit: renderers ## Tests without a cluster: unit and property tests, rendered manifests, documents
	KUBECTL=$$(command -v kubectl || true) cargo test --locked --workspace --exclude e2e \
	  --lib --bins --test rendering --test documents --test book

.PHONY: integration
integration: programs ## Integration tests against a real API server and azure-emulator, on loopback
	cargo test --locked --workspace --exclude e2e --test '*'

.PHONY: chart-tests
chart-tests: programs ## Tests of the Helm chart and the kustomize manifests, also with a real API server
	cargo test --locked --workspace --exclude e2e --test rendering --test api_server

.PHONY: e2e
e2e: check-cluster tools ## All end-to-end tests, on two local kind clusters or on the cluster of KUBECONFIG
	@tests/e2e/all.sh

# The clusters have names of their own and ignore KUBECONFIG, so a running cluster is not touched.
.PHONY: e2e-kind
e2e-kind: tools ## All end-to-end tests on two temporary local kind clusters, whatever KUBECONFIG is
	@unset KUBECONFIG ACR_PULL_CONTEXT; ACR_PULL_CLUSTER_NAME=e2e tests/e2e/all.sh

.PHONY: e2e-oldest
e2e-oldest: export KUBERNETES := oldest
e2e-oldest: tools ## All end-to-end tests on the oldest supported Kubernetes release, on two more local kind clusters
	@HELM_VERSION=4 tests/chart/build.sh >/dev/null
	@tests/cluster/build.sh >/dev/null
	cargo test --locked --workspace --exclude e2e --test api_server -- schemas
	@unset KUBECONFIG ACR_PULL_CONTEXT; ACR_PULL_CLUSTER_NAME=oldest tests/e2e/all.sh

.PHONY: e2e-helm
e2e-helm: check-cluster tools ## End-to-end tests of the Helm chart (E2E_ROTATIONS under load, 20 s each)
	@tests/e2e/run.sh helm

# Before the long steps: whether the tests may use the cluster that the environment names.
.PHONY: check-cluster
check-cluster:
	@tests/e2e/run.sh check

# Coverage needs unstable compiler flags; RUSTC_BOOTSTRAP makes the stable compiler accept them.
.PHONY: fuzz
fuzz: tools ## Fuzz every parser of untrusted input with libFuzzer, one minute each (TARGET=review, FUZZ_SECONDS=60)
	@cargo_fuzz=$$(deploy/cargo-tool.sh cargo-fuzz 0.13.2)/cargo-fuzz; \
	for target in $(or $(TARGET),$(fuzz_targets)); do \
	  mkdir -p "fuzz/found/$$target"; \
	  RUSTC_BOOTSTRAP=1 "$$cargo_fuzz" run --target-dir "$(fuzz_folder)" "$$target" \
	    "fuzz/found/$$target" "fuzz/corpus/$$target" -- -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=16384 -print_final_stats=1; \
	done

.PHONY: soak
soak: programs ## Soak test: 1,000 pull secrets with 20 s tokens, five minutes (SOAK_PULL_SECRETS, SOAK_SECONDS)
	SOAK_PULL_SECRETS=$(or $(SOAK_PULL_SECRETS),1000) SOAK_SECONDS=$(or $(SOAK_SECONDS),300) \
	  cargo test --locked --workspace --exclude e2e --profile benchmark --test integration -- --nocapture scale::

.PHONY: bench
bench: ## Benchmark against a baseline, about 35 minutes on an idle machine; writes bench/results.md (PART=warm, ...)
	@bench/run.sh $(PART)

.PHONY: flame-graphs
flame-graphs: ## Draw bench/flame-webhook.svg and bench/flame-baseline.svg: where warm admissions spend CPU time
	@bench/run.sh --profile bench

.PHONY: test-cluster
test-cluster: ## Tests of the local kind cluster and of the control plane, or of PART: build, control-plane
	@tests/cluster/test.sh $(PART)
	@$(if $(PART),,tests/kind/test.sh)

##@ Keep it clean

.PHONY: fmt
fmt: ## Format Rust and Go code
	cargo fmt --all
	gofmt -l -w $(go_modules)

.PHONY: lint
lint: lint-rust lint-dependencies lint-shell lint-go lint-manifests lint-workflows ## All linters: Rust, dependencies, shell, Go, manifests, workflows

.PHONY: lint-rust
lint-rust: tools
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	tests/rooms.sh
	@! git grep --line-number 'env!("CARGO_MANIFEST_DIR")' -- '*.rs' || \
	  { echo "find the folder at run time: clones that share a target folder run each other's programs"; exit 1; }
	@features() { cargo tree --locked --workspace --prefix none --format '{p} {f}' "$$@" | sed 's/ (\*)$$//' | sort -u; }; \
	for without in e2e "e2e --exclude chart"; do \
	  different=$$(comm -13 <(features) <(features --exclude $$without)); [[ -z $$different ]] || \
	    { echo "without tests/$${without##* }, cargo compiles again, for other features:"$$'\n'"$$different"; exit 1; }; \
	done
	@source deploy/lib.sh; copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; copy_sources "$$copy"; \
	cargo metadata --locked --no-deps --format-version 1 --manifest-path "$$copy/Cargo.toml" >/dev/null || \
	  die "copy_sources in deploy/lib.sh, which 'make reproducible' and 'make sbom' use, does not copy the whole workspace"

.PHONY: lint-dependencies
lint-dependencies: tools
	$(cargo_deny) bans licenses sources

# Not a part of 'make lint': advisories need a remote database and change without a commit here.
.PHONY: advisories
advisories: tools ## Check that the dependencies have no known vulnerability, by the database of RustSec
	$(cargo_deny) advisories

.PHONY: lint-shell
lint-shell:
	@command -v shellcheck >/dev/null || deploy/packages.sh shellcheck
	shellcheck $(scripts)
	@long=$$(wc -l $(scripts) | awk '$$1 >= 100 && $$2 != "total"'); \
	[[ -z $$long ]] || { echo "split these shell files by concern, or write Rust or Go; the limit is 99 lines:$$long"; exit 1; }

.PHONY: lint-go
lint-go:
	@unformatted=$$(gofmt -l $(go_modules)); [[ -z $$unformatted ]] || { echo "gofmt would change: $$unformatted; run 'make fmt'"; exit 1; }
	for module in $(go_vetted); do (cd "$$module" && go vet ./...); done

.PHONY: lint-manifests
lint-manifests:
	@kubectl=$$(command -v kubectl || echo "$$(tests/cluster/build.sh)/kubectl"); \
	for overlay in $(overlays); do echo "kubectl kustomize $$overlay"; "$$kubectl" kustomize "$$overlay" >/dev/null; done
	go run $(terraform_config_inspect) examples/terraform >/dev/null

.PHONY: lint-workflows
lint-workflows:
	go run $(actionlint) -shellcheck= .github/workflows/*.yml

##@ Run it on a cluster

.PHONY: deploy
deploy: ## Deploy the webhook to the cluster of ACR_PULL_CONTEXT or to a kind cluster; to the latter also azure-emulator
	@tests/e2e/deploy.sh

.PHONY: image
image: ## Build the webhook's image as an archive; prints its name and file (CONTAINER_TOOL=docker, podman or buildah)
	@deploy/image.sh acr-pull-webhook
	@echo "The chart pulls the tag $$(sed -n 's/^appVersion: //p' deploy/chart/Chart.yaml) unless image.tag is set:" \
	  "skopeo copy docker-archive:ARCHIVE docker://REPOSITORY:TAG" >&2

.PHONY: chart
chart: ## Package the Helm chart in target/chart; prints its file
	@helm=$$(command -v helm || tests/chart/build.sh); mkdir -p target/chart; \
	"$$helm" package deploy/chart --destination target/chart

.PHONY: reproducible
reproducible: tools ## Build the program twice in different folders, compare, and put it into target/reproducible (PROFILE)
	@deploy/reproducible.sh target/reproducible/acr-pull-webhook

.PHONY: sbom
sbom: tools ## Write a CycloneDX SBOM of the program to target/sbom/acr-pull-webhook.cdx.json
	@deploy/sbom.sh target/sbom/acr-pull-webhook.cdx.json

.PHONY: cluster
cluster: ## Start a local kind cluster: with Docker, or as root with podman; prints its KUBECONFIG
	@$(cluster) up

.PHONY: cluster-down
cluster-down: ## Remove the local kind cluster
	@$(cluster) down

.PHONY: packages
packages: ## Agree that Debian packages are installed when a command needs them (as root)
	@deploy/packages.sh --agree

##@ Generate files

.PHONY: generate
generate: tools ## Write what is generated from the program: reference pages and picture in docs, CRDs in deploy
	cargo run --quiet --locked --package documents

.PHONY: docs
docs: generate ## Generate the reference pages, and build the book in target/book
	@rm -rf target/book
	"$$(tools/mdbook.sh)" build

.PHONY: chart-reference
chart-reference: ## Generate the README of the chart and the descriptions in its schema from the comments of values.yaml
	cargo run --quiet --locked --package chart --bin chart-reference

.PHONY: dashboard
dashboard: programs ## Draw docs/dashboard.svg, the panels of the dashboard with the figures of an integration test
	DASHBOARD_SVG=$(CURDIR)/docs/dashboard.svg cargo test --locked --test integration -- each_query_of_the_dashboard

.PHONY: certs
certs: ## Create a CA and a serving certificate in DIR (default: certs/made)
	@certs/make-certs.sh $(or $(DIR),certs/made) acr-pull-webhook.acr-pull-webhook.svc

.PHONY: clean
clean: ## Remove build results; the caches in ~/.cache/acr-pull-webhook stay
	cargo clean
	rm -rf certs/made

##@ Variables of demo, deploy and e2e
## KUBECONFIG              a kind cluster of yours: the current context is used; without it, a local cluster
## ACR_PULL_CONTEXT        the context of any other cluster that may be changed; nothing else makes these commands use it
## IMAGE_REPOSITORY        where to push images for a cluster that is not kind's, such as contoso.azurecr.io/platform
## IMAGE                   an existing image of the webhook in a registry, to be used instead of a build
## PROFILE                 the cargo profile of the webhook: quick for demo, release for deploy and e2e
## CERTS_DIR               folder with ca.crt, tls.crt and tls.key; by default the webhook issues its own certificates
## EMULATOR                yes or no: whether to deploy azure-emulator; by default yes on kind
## NODE_EXEC               with EMULATOR=yes on another cluster: a program that runs a command on a node (arguments: node, command)
## ACR_PULL_CLUSTER_NAME   the name of the local cluster; another name is another cluster beside it
## KIND_EXPERIMENTAL_PROVIDER, KIND_NODE_IMAGE   for the local cluster: docker, podman or nerdctl, and a node image of yours
## AZURE_TENANT_ID, ACR_PULL_WEBHOOK_*   options of the webhook, see docs/flags.md

.PHONY: help
help: ## Print this page
	@awk -F ':.*## ' ' \
	  /^##@ / { printf "\n%s\n", substr($$0, 5); next } \
	  /^## / { print "  " substr($$0, 4); next } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The C compiler that cargo builds need in addition to Rust.
.PHONY: tools
tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || deploy/packages.sh gcc libc6-dev

# The programs that integration tests start. They are built first, so that the progress of the first build is visible.
.PHONY: programs
programs: renderers
	@tests/cluster/build.sh >/dev/null
	@tests/registry/build.sh >/dev/null
	@command -v ip >/dev/null || deploy/packages.sh iproute2
	@tests/resolver/build.sh >/dev/null

# What renders and parses the manifests and documents in tests that need no cluster.
.PHONY: renderers
renderers: tools
	@HELM_VERSION=3 tests/chart/build.sh >/dev/null
	@HELM_VERSION=4 tests/chart/build.sh >/dev/null
	@tests/prometheus/build.sh >/dev/null
	@tools/mdbook.sh >/dev/null
	@tools/azure-cli/setup.sh >/dev/null
