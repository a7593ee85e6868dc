#!/usr/bin/env bash
# Builds cert-manager, see main.go, and prints the folder with the program and its kinds, crds/. The first build takes two to
# three minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
source "$here/../cluster/lib.sh"

module=github.com/cert-manager/cert-manager
version=$(awk -v module="$module" '$1 == module { print $2 } $1 == "require" && $2 == module { print $3 }' "$here/go.mod")

fill() {
  local sources
  need_go "$here" "cert-manager $version"
  progress "building cert-manager $version (two to three minutes the first time)" \
    go_build "$1/cert-manager" "$here" . -ldflags "-s -w"
  sources=$(cd "$here" && go list -m -f '{{.Dir}}' "$module")
  mkdir "$1/crds"
  install -m 644 "$sources"/deploy/crds/*.yaml "$1/crds"
}

folder=$(cache_dir)/cert-manager/$version/$(content_hash "$here"/{go.mod,go.sum,main.go,build.sh})
build_once "$folder" fill
printf '%s\n' "$folder"
