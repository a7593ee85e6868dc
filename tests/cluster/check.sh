# The test runner of tests/cluster and tests/registry. Sourced, never run.
# shellcheck shell=bash

passed=0 failed=0

# check FUNCTION: a test is a function; its name says what it proves, and it fails where the first command of it does.
check() {
  local output status=0 started=$SECONDS
  output=$(mktemp)
  set +e
  (
    set -e
    "$1"
  ) >"$output" 2>&1
  status=$?
  set -e
  if ((status == 0)); then
    passed=$((passed + 1))
    printf 'ok     %s (%d s)\n' "${1//_/ }" $((SECONDS - started))
  else
    failed=$((failed + 1))
    printf 'FAILED %s (%d s)\n' "${1//_/ }" $((SECONDS - started))
    sed 's/^/       /' "$output"
  fi
  rm -f "$output"
}

# summary: the last command of a test script; its status is the script's.
summary() {
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}

# equal EXPECTED ACTUAL
equal() {
  [[ $1 == "$2" ]] && return
  printf 'expected: %s\n  actual: %s\n' "$1" "$2"
  return 1
}

# contains TEXT PART
contains() {
  [[ $1 == *"$2"* ]] && return
  printf 'expected to contain: %s\n             actual: %s\n' "$2" "$1"
  return 1
}

# refusal COMMAND...: prints what the command says on its standard error while failing; fails if it succeeds.
refusal() {
  local said
  if said=$("$@" 2>&1 >/dev/null); then
    printf 'succeeded, but should have been refused: %s\n' "$*"
    return 1
  fi
  printf '%s\n' "$said"
}
