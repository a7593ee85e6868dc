# Shell functions that build Go programs for tests. Sourced, never run.
# shellcheck shell=bash
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/lib.sh"

# need_go MODULE WHAT: ends with one sentence unless the installed Go can build the module in the folder MODULE.
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
