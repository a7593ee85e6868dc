# Shell functions of all scripts of this repository. Sourced, never run.
# shellcheck shell=bash

# Without this option, a failure inside $(...) goes unnoticed.
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# cache_dir: prints the folder of everything that is built or kept between runs. It may be deleted.
cache_dir() {
  printf '%s/acr-pull-webhook\n' "${XDG_CACHE_HOME:-$HOME/.cache}"
}

say() {
  printf '%s\n' "$*" >&2
}

die() {
  say "${0##*/}: $*"
  exit 1
}

# progress WHAT COMMAND...: runs COMMAND, and prints every 15 s that it is running, and its output if it fails.
progress() {
  local what=$1 log ticker started=$SECONDS status=0
  shift
  log=$(mktemp)
  say "$what ..."
  # The ticker ends with the shell that started it, even if that shell is killed. It kills its own sleep, which would
  # keep the pipes of the caller open.
  (
    trap 'kill "$!"; exit' TERM
    while kill -0 $$ 2>/dev/null; do
      sleep 15 &
      wait "$!"
      say "$what: $((SECONDS - started)) s so far"
    done
  ) >/dev/null &
  ticker=$!
  "$@" >"$log" 2>&1 </dev/null || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  if ((status)); then
    tail -n 40 "$log" >&2
    rm -f "$log"
    die "$what failed after $((SECONDS - started)) s (status $status); its last lines are above"
  fi
  rm -f "$log"
  say "$what: done in $((SECONDS - started)) s"
}

# await SECONDS COMMAND...: succeeds as soon as COMMAND succeeds, and fails if COMMAND does not succeed within SECONDS.
await() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# content_hash FILE...: prints the hash that names a cached build.
content_hash() {
  cat "$@" | sha256sum | cut -c 1-12
}

# take_lock FILE WHAT: opens and locks FILE as $lock. While another process has the lock, the script waits for WHAT.
take_lock() {
  exec {lock}>"$1"
  flock --nonblock "$lock" || { say "waiting for $2 ..." && flock "$lock"; }
}

# build_once FOLDER FUNCTION: FUNCTION fills a folder that then becomes FOLDER, once if there are two callers at a time.
build_once() {
  local folder=$1 fill=$2 temporary lock
  [[ -d $folder ]] && return
  mkdir -p "${folder%/*}"
  take_lock "$folder.lock" "another build of ${folder##*/}"
  if [[ ! -d $folder ]]; then
    temporary=$(mktemp -d "$folder.XXXXXX")
    # shellcheck disable=SC2064 # the name of now, not of then
    trap "rm -rf '$temporary'" EXIT
    "$fill" "$temporary"
    chmod 755 "$temporary"
    mv -T "$temporary" "$folder"
    trap - EXIT
  fi
  exec {lock}>&-
}

# need COMMAND [PACKAGE...]: makes sure that COMMAND exists: installs its Debian packages, or says which are missing.
need() {
  command -v "$1" >/dev/null || "$root/deploy/packages.sh" "${@:$(($# > 1 ? 2 : 1))}"
}

# copy_sources FOLDER: copies the repository to FOLDER, with uncommitted changes and without what was built.
copy_sources() {
  tar -C "$root" --exclude ./.git --exclude ./target -cf - . | tar -C "$1" -xf -
}
