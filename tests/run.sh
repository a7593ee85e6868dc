#!/usr/bin/env bash
# All tests, in two sequences at the same time: the tests on kind clusters, which wait most of the time, and the other
# tests, which need the processors.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"
# shellcheck source=tests/sequences.sh
source "$root/tests/sequences.sh"
cd "$root"

work=$(mktemp -d)

# timed COMMAND...: runs COMMAND, and prints how long it took.
timed() {
  local started=$SECONDS
  "$@"
  say "$*: $((SECONDS - started)) s"
}

run_kind_tests() {
  # The end-to-end tests need this program, whose build takes minutes. cargo lets them wait for it.
  [[ -n ${IMAGE:-} ]] || deploy/binary.sh acr-pull-webhook "${PROFILE:-release}" "$work/acr-pull-webhook" &
  # First, because it compares what is on the machine before and after its cluster.
  timed tests/kind/test.sh
  timed tests/e2e/all.sh
}

run_other_tests() {
  timed cargo test --locked --workspace --exclude e2e
  timed tests/registry/test.sh
  timed bench/run.sh --smoke
  timed tests/cluster/test.sh
}

stop() {
  local status=$?
  stop_sequences
  rm -rf "$work"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What may ask whether packages may be installed: the two sequences cannot ask.
need valgrind
need skopeo
need curl
tests/kind/prepare.sh
# Both sequences use these programs, and cargo lets only one process compile at a time.
cargo test --locked --workspace --no-run

run_sequences "on kind clusters" "$work/log" run_other_tests run_kind_tests
