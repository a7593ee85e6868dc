# The one interface to this repository. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
# The steps share two cores, one cargo target folder and one cluster.
.NOTPARALLEL:

cluster := tests/cluster/cluster.sh
# Not by git, which refuses to look at another user's repository, as root does in CI.
files = $(sort $(patsubst ./%,%,$(shell find . \( -name target -o -name .git \) -prune -o -name '$(1)' -print)))
scripts = .ci/run $(call files,*.sh)
go_modules = $(patsubst %/,%,$(dir $(call files,go.mod)))
# Components are parts of overlays: tests/chart renders them.
overlays = $(filter-out deploy/kustomize/components/%,$(patsubst %/,%,$(dir $(call files,kustomization.yaml))))
# Vetting the few lines there would first vet all of Kubernetes, for eight minutes, or cert-manager; the compiler sees them
# anyway.
go_vetted = $(filter-out tests/cluster/kubernetes tests/cert-manager,$(go_modules))
cargo_deny := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/acr-pull-webhook/cargo-deny/0.20.2
cargo_fuzz := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/acr-pull-webhook/cargo-fuzz/0.13.2
fuzz_folder := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/acr-pull-webhook/fuzz
fuzz_targets = $(shell sed -n 's/^name = "\([a-z_]*\)"$$/\1/p' fuzz/Cargo.toml)
actionlint := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

##@ See it work

.PHONY: demo
demo: ## One private image, without and with the annotation, on a real cluster (KUBECONFIG, else kind, else a local one)
	@tests/e2e/demo.sh

##@ Test it

.PHONY: test
test: programs ## Everything: unit, integration and end-to-end tests; installs what is missing
	cargo test --locked --workspace --exclude e2e
	tests/registry/test.sh
	tests/chart/test.sh
	@bench/run.sh --smoke
	tests/cluster/test.sh $(if $(filter 0,$(shell id -u)),,control-plane)
	@tests/e2e/run.sh

.PHONY: unit
unit: tools ## Unit and property tests: no network, no cluster
	cargo test --locked --workspace --exclude e2e --lib --bins

.PHONY: integration
integration: programs ## Against a real API server and azure-emulator, on loopback
	cargo test --locked --workspace --exclude e2e --test '*'

.PHONY: e2e
e2e: tools ## Against a real node: the cluster of KUBECONFIG, else a local one (as root) for the time of the tests
	@tests/e2e/run.sh

# A cluster of its own name, whatever KUBECONFIG says: a started one of the newest release stays as it is.
.PHONY: e2e-oldest
e2e-oldest: tools ## The same on the oldest supported release, on a local cluster of its own (as root)
	@unset KUBECONFIG; KUBERNETES=oldest ACR_PULL_CLUSTER_NAME=oldest tests/e2e/run.sh

.PHONY: e2e-helm
e2e-helm: tools ## Of these, what installs the Helm chart; removes an installed webhook (E2E_ROTATIONS under load, 20 s each)
	@tests/e2e/run.sh helm

# Coverage needs flags that are unstable still; RUSTC_BOOTSTRAP lets the stable compiler take them.
.PHONY: fuzz
fuzz: tools ## Every parser of strangers' bytes, a minute each, by libFuzzer (TARGET=review, FUZZ_SECONDS=60)
	@[[ -x $(cargo_fuzz)/bin/cargo-fuzz ]] || { echo "installing cargo-fuzz (about a minute, once) ..."; \
	  cargo install --quiet --locked cargo-fuzz@$(notdir $(cargo_fuzz)) --root $(cargo_fuzz); }
	@for target in $(or $(TARGET),$(fuzz_targets)); do \
	  mkdir -p "fuzz/found/$$target"; \
	  RUSTC_BOOTSTRAP=1 $(cargo_fuzz)/bin/cargo-fuzz run --target-dir "$(fuzz_folder)" "$$target" \
	    "fuzz/found/$$target" "fuzz/corpus/$$target" -- -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=16384 -print_final_stats=1; \
	done

.PHONY: soak
soak: programs ## 1,000 pull secrets with lives of 20 s, for five minutes (SOAK_PULL_SECRETS, SOAK_SECONDS)
	SOAK_PULL_SECRETS=$(or $(SOAK_PULL_SECRETS),1000) SOAK_SECONDS=$(or $(SOAK_SECONDS),300) \
	  cargo test --locked --workspace --exclude e2e --profile quick --test integration -- --nocapture scale::

.PHONY: bench
bench: ## Measures beside a floor, some half an hour on a machine that does nothing else; writes bench/results.md (PART=warm, ...)
	@bench/run.sh $(PART)

.PHONY: test-cluster
test-cluster: ## The tests of the test cluster itself, as root
	@tests/cluster/test.sh

.PHONY: e2e-kind
e2e-kind: ## The same on a kind cluster made for it and deleted afterwards (KIND, KIND_NODE_IMAGE, NODE_EXEC, CONTAINER_TOOL)
	@tests/e2e/kind.sh e2e

##@ Keep it clean

.PHONY: fmt
fmt: ## Formats Rust and Go
	cargo fmt --all
	gofmt -l -w $(go_modules)

.PHONY: lint
lint: lint-rust lint-dependencies lint-shell lint-go lint-manifests lint-chart lint-workflows ## Every check that runs nothing: Rust, dependencies, shell, Go, manifests, chart, workflows

.PHONY: lint-rust
lint-rust: tools
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# Advisories are for the hosted workflow: they need a database from elsewhere, and change without us.
.PHONY: lint-dependencies
lint-dependencies: tools
	@[[ -x $(cargo_deny)/bin/cargo-deny ]] || { echo "installing cargo-deny (about three minutes, once) ..."; \
	  cargo install --quiet --locked cargo-deny@$(notdir $(cargo_deny)) --root $(cargo_deny); }
	$(cargo_deny)/bin/cargo-deny --locked check bans licenses sources

.PHONY: lint-shell
lint-shell:
	@command -v shellcheck >/dev/null || tests/cluster/packages.sh shellcheck
	shellcheck $(scripts)

.PHONY: lint-go
lint-go:
	@unformatted=$$(gofmt -l $(go_modules)); [[ -z $$unformatted ]] || { echo "gofmt would change: $$unformatted; run 'make fmt'"; exit 1; }
	for module in $(go_vetted); do (cd "$$module" && go vet ./...); done

.PHONY: lint-manifests
lint-manifests:
	@kubectl=$$(command -v kubectl || echo "$$(tests/cluster/build.sh)/kubectl"); \
	for overlay in $(overlays); do echo "kubectl kustomize $$overlay"; "$$kubectl" kustomize "$$overlay" >/dev/null; done

.PHONY: lint-chart
lint-chart:
	tests/chart/test.sh lint

.PHONY: lint-workflows
lint-workflows:
	go run $(actionlint) -shellcheck= .github/workflows/*.yml

##@ Run it on a cluster

.PHONY: deploy
deploy: ## The webhook on the cluster of KUBECONFIG, else the local one; on kind and local also azure-emulator
	@tests/e2e/deploy.sh

.PHONY: image
image: ## The webhook's image as an archive; prints its name and file (CONTAINER_TOOL=docker, podman or buildah)
	@deploy/image.sh acr-pull-webhook

.PHONY: chart
chart: ## The Helm chart as an archive under target/chart; prints its file
	@helm=$$(command -v helm || tests/chart/build.sh); mkdir -p target/chart; \
	"$$helm" package deploy/chart --destination target/chart

.PHONY: reproducible
reproducible: tools ## The webhook's program in target/reproducible, built twice in different folders with the same result (PROFILE)
	@deploy/reproducible.sh target/reproducible/acr-pull-webhook

.PHONY: sbom
sbom: tools ## A bill of materials of the program, CycloneDX: target/sbom/acr-pull-webhook.cdx.json
	@deploy/sbom.sh target/sbom/acr-pull-webhook.cdx.json

.PHONY: cluster
cluster: ## A one-node Kubernetes on this Linux machine, as root, built from source; prints its KUBECONFIG
	@$(cluster) up

.PHONY: cluster-down
cluster-down: ## Stops it and leaves nothing of it
	@$(cluster) down

##@ Write files

.PHONY: crds
crds: ## deploy/kustomize/crds and generators, and the chart's, from the types in src/
	cargo run --quiet --locked --package acr-pull-webhook --example crds | awk -v RS='---\n' \
	  'match($$0, /\n  name: [a-z]+/) { name = substr($$0, RSTART + 9, RLENGTH - 9); \
	  printf "%s", $$0 >("deploy/kustomize/" (name == "acrpullsecrets" ? "crds" : "generators") "/" name ".yaml"); \
	  printf "%s", $$0 >("deploy/chart/files/crds/" name ".yaml") }'

.PHONY: certs
certs: ## A certificate authority and a serving certificate in DIR (default: certs/made)
	@certs/make-certs.sh $(or $(DIR),certs/made) acr-pull-webhook.acr-pull-webhook.svc

.PHONY: clean
clean: ## Removes what was built here; caches under ~/.cache/acr-pull-webhook stay
	cargo clean
	rm -rf certs/made

##@ Variables of demo, deploy and e2e
## KUBECONFIG              the cluster to use
## IMAGE_REPOSITORY        where to push images for a cluster that is neither kind nor local, such as contoso.azurecr.io/platform
## IMAGE                   an image of the webhook that is in a registry already: nothing is built
## CERTS_DIR               folder with ca.crt, tls.crt and tls.key to use; without it the webhook makes its own certificates
## EMULATOR                yes or no; by default yes on kind and the local cluster
## NODE_EXEC               with EMULATOR=yes elsewhere: a command that, given a node's name and a command, runs it there
## AZURE_TENANT_ID, ACR_PULL_WEBHOOK_*   options of the webhook, as README tells

.PHONY: help
help: ## This page
	@awk -F ':.*## ' ' \
	  /^##@ / { printf "\n%s\n", substr($$0, 5); next } \
	  /^## / { print "  " substr($$0, 4); next } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What cargo's own tools need beside Rust.
.PHONY: tools
tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || tests/cluster/packages.sh gcc libc6-dev

# What integration tests start. Built first, so that the progress of a first build is seen.
.PHONY: programs
programs: tools
	@tests/cluster/build.sh >/dev/null
	@tests/registry/build.sh >/dev/null
