#!/usr/bin/env bash
# All tests, in two sequences of about the same length at the same time: those of `cargo test` without a node but for the
# chart's, and those of the chart and of scripts, most of them on kind clusters.
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

# Builds the programs that the end-to-end tests deploy.
build_deployed() {
  local folder
  folder=$(mktemp -d)
  [[ -n ${IMAGE:-} ]] || deploy/binary.sh acr-pull-webhook "${PROFILE:-release}" "$folder/acr-pull-webhook"
  deploy/binary.sh azure-emulator quick "$folder/azure-emulator"
  rm -r "$folder"
}

run_cargo_tests() {
  timed cargo test --locked --workspace --exclude e2e --exclude chart
}

run_script_tests() {
  # First, because it compares what is on the machine before and after its cluster.
  timed tests/kind/test.sh
  timed tests/e2e/all.sh
  timed tests/registry/test.sh
  timed bench/run.sh --smoke
  # Here, so that both sequences take about the same time. The library of tests/chart has no tests.
  timed make chart-tests
  timed tests/cluster/test.sh
}

# What may ask whether packages may be installed: the two sequences cannot ask.
need valgrind
need skopeo
need curl
tests/kind/prepare.sh
# Everything is compiled before the first test: beside tests, the release takes ten minutes, and the end-to-end tests wait
# for it. Most of its build uses one processor, so the tests are compiled at the same time.
set -m
build_deployed </dev/null &
deployed=$!
set +m
trap 'kill -TERM -- "-$deployed" 2>/dev/null || true' EXIT
timed cargo test --locked --workspace --no-run
wait "$deployed"

run_sequences "in tests/kind, tests/e2e, tests/registry, tests/chart, tests/cluster and bench" run_cargo_tests run_script_tests
