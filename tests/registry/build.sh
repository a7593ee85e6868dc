#!/usr/bin/env bash
# Builds distribution's registry as one static program and prints its path. The first build takes about a minute.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
source "$here/../cluster/lib.sh"

version=$(awk '$1 == "require" && $2 ~ "/distribution/v3$" { print $3 }' "$here/go.mod")

fill() {
  need_go "$here" "the registry (distribution $version)"
  progress "building the registry (distribution $version; about a minute the first time)" \
    go_build "$1/registry" "$here" . -ldflags \
    "-s -w -X github.com/distribution/distribution/v3/version.version=$version"
}

folder=$(cache_dir)/registry/$version/$(content_hash "$here"/{go.mod,go.sum,main.go,build.sh})
build_once "$folder" fill
printf '%s\n' "$folder/registry"
