#!/usr/bin/env bash
# All tests, in two sequences at the same time: the tests on kind clusters, which wait most of the time, and the other
# tests, which need the processors. The output of the tests on kind clusters is printed after that of the others. The
# first failure ends both sequences.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"
cd "$root"

work=$(mktemp -d)
kind_log=$work/log
kind_tests='' other_tests=''

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
  timed tests/e2e/run.sh
}

run_other_tests() {
  timed cargo test --locked --workspace --exclude e2e
  timed tests/registry/test.sh
  timed bench/run.sh --smoke
  timed tests/cluster/test.sh
}

# Stops what still runs, and waits until it has removed its clusters.
stop() {
  local status=$? group
  trap '' INT TERM
  for group in $kind_tests $other_tests; do
    kill -TERM -- "-$group" 2>/dev/null || true
  done
  wait || true
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

# Each sequence is a process group, so that it can be stopped with the processes that it started.
set -m
run_kind_tests </dev/null >"$kind_log" 2>&1 &
kind_tests=$!
say "the tests on kind clusters have started beside the other tests; their output so far: tail -f $kind_log"
run_other_tests </dev/null &
other_tests=$!
set +m

if ! wait -n -p ended; then
  [[ $ended == "$other_tests" ]] || cat "$kind_log"
  die "a test failed; its output is above"
fi
[[ $ended == "$other_tests" ]] || wait "$other_tests" || die "a test failed; its output is above"
say "this is the output of the tests on kind clusters:"
tail --lines=+1 --follow --pid="$kind_tests" "$kind_log"
[[ $ended == "$kind_tests" ]] || wait "$kind_tests" || die "a test on a kind cluster failed; its output is above"
