# Shell functions shared by tests/cluster and tests/registry. Sourced, never run.
# shellcheck shell=bash

# What everything built or kept between runs lives under; safe to delete.
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

# progress WHAT COMMAND...: runs COMMAND, telling every 15 s that it is still at it, and its output if it fails.
progress() {
  local what=$1 log ticker started=$SECONDS status=0
  shift
  log=$(mktemp)
  say "$what ..."
  # The ticker looks for the shell that started it, so that it ends even when that is killed,
  # and takes its sleep along, which would hold the caller's pipes open.
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

# await SECONDS COMMAND...: true as soon as COMMAND succeeds, false when it has not within SECONDS.
await() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# need_go MODULE WHAT: ends with one sentence unless the Go at hand can build the module in the folder MODULE.
need_go() {
  local module=$1 what=$2 need have
  need=$(awk '$1 == "go" { print $2; exit }' "$module/go.mod")
  command -v go >/dev/null ||
    die "Go $need or newer is needed to build $what, and no 'go' is in PATH: install it from https://go.dev/dl/"
  # Asked inside the module, so that a Go that may fetch its own newer toolchain does.
  have=$(cd "$module" && go env GOVERSION 2>/dev/null) || have=$(go env GOVERSION)
  have=${have#go}
  [[ $(printf '%s\n' "$need" "$have" | sort -V | head -n 1) == "$need" ]] ||
    die "Go $need or newer is needed to build $what, but $(command -v go) is $have: install a newer one from https://go.dev/dl/"
}

# go_in MODULE COMMAND...: go in the folder MODULE, with the settings that all builds share, because a dependency is
# compiled again for different ones. -trimpath would compile the standard library again, too. Two settings make the
# compiler cheaper: GOGC=400 takes a quarter of its work and a quarter more memory, and the debug information is not
# generated that no build here keeps.
go_in() {
  local module=$1
  shift
  (
    cd "$module" || return
    GOGC=400 CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false -gcflags=all=-dwarf=false -gcflags=std=" go "$@"
  )
}

# go_build OUT MODULE PACKAGE [FLAG...]: a static program.
go_build() {
  local out=$1 module=$2 package=$3
  shift 3
  go_in "$module" build -o "$out" "$@" "$package"
}

# content_hash FILE...: what a cached build is named by.
content_hash() {
  cat "$@" | sha256sum | cut -c 1-12
}

# build_once FOLDER FUNCTION: makes FOLDER by calling FUNCTION with a temporary folder to fill, and renames
# that into place: there is a whole FOLDER or none. Two callers at once build it once.
build_once() {
  local folder=$1 fill=$2 temporary lock
  [[ -d $folder ]] && return
  mkdir -p "${folder%/*}"
  exec {lock}>"$folder.lock"
  if ! flock --nonblock "$lock"; then
    say "waiting for another build of ${folder##*/} ..."
    flock "$lock"
  fi
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

# cgroup_mounts: a line "FOLDER TYPE OPTIONS" for each cgroup hierarchy: one on a cgroup v2 machine, a dozen on a v1 one.
cgroup_mounts() {
  awk '{ for (i = 7; $i != "-"; i++); if ($(i + 1) ~ /^cgroup2?$/) print $5, $(i + 1), $(i + 3) }' /proc/self/mountinfo |
    sort -u -k 1,1
}
