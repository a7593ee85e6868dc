# Runs two sequences of tests at the same time. Sourced, never run.
# shellcheck shell=bash disable=SC2154 # die and say are those of deploy/lib.sh

live_sequence='' other_sequence='' sequences_folder=''

# run_sequences WHAT LIVE OTHER: runs the functions LIVE and OTHER at the same time. The output of OTHER, which are the tests
# WHAT, is printed after that of LIVE; until then it is in a file. The first failure ends the script and both sequences.
# sequences_folder is a folder for files of the sequences, which is removed at the end.
run_sequences() {
  local what=$1 live=$2 other=$3 log ended
  sequences_folder=$(mktemp -d)
  log=$sequences_folder/log
  trap stop_sequences EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # Each sequence is a process group, so that it can be stopped with the processes that it started.
  set -m
  "$other" </dev/null >"$log" 2>&1 &
  other_sequence=$!
  say "the tests $what have started beside the other tests; their output so far: tail -f $log"
  "$live" </dev/null &
  live_sequence=$!
  set +m
  if ! wait -n -p ended "$live_sequence" "$other_sequence"; then
    [[ $ended == "$live_sequence" ]] || cat "$log"
    die "a test failed; its output is above"
  fi
  [[ $ended == "$live_sequence" ]] || wait "$live_sequence" || die "a test failed; its output is above"
  say "this is the output of the tests $what:"
  tail --lines=+1 --follow --pid="$other_sequence" "$log"
  [[ $ended == "$other_sequence" ]] || wait "$other_sequence" || die "a test $what failed; its output is above"
}

# Stops what still runs, and waits until it has removed its clusters.
stop_sequences() {
  local status=$? group
  trap '' INT TERM
  for group in $live_sequence $other_sequence; do
    kill -TERM -- "-$group" 2>/dev/null || true
  done
  wait || true
  rm -rf "$sequences_folder"
  exit "$status"
}
