#!/usr/bin/env bash
# All tests, in two sequences of about the same length at the same time: those of `cargo test` without a node, and those that
# scripts start, most of them on kind clusters.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"
# shellcheck source=tests/sequences.sh
source "$root/tests/sequences.sh"
cd "$root"

# timed COMMAND...: runs COMMAND, and prints how long it took.
timed() {
  local started=$SECONDS
  "$@"
  say "$*: $((SECONDS - started)) s"
}

run_cargo_tests() {
  timed cargo test --locked --workspace --exclude e2e
}

run_script_tests() {
  # The end-to-end tests need this program, whose build takes minutes. cargo lets them wait for it.
  [[ -n ${IMAGE:-} ]] || deploy/binary.sh acr-pull-webhook "${PROFILE:-release}" "$sequences_folder/acr-pull-webhook" &
  # First, because it compares what is on the machine before and after its cluster.
  timed tests/kind/test.sh
  timed tests/e2e/all.sh
  timed tests/registry/test.sh
  timed bench/run.sh --smoke
  timed tests/cluster/test.sh
}

# What may ask whether packages may be installed: the two sequences cannot ask.
need valgrind
need skopeo
need curl
tests/kind/prepare.sh
# Both sequences use these programs, and cargo lets only one process compile at a time.
cargo test --locked --workspace --no-run

run_sequences "in tests/kind, tests/e2e, tests/registry, tests/cluster and bench" run_cargo_tests run_script_tests
