#!/usr/bin/env bash
# Builds Helm and prints its path. The first build takes about two minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
source "$here/../cluster/lib.sh"

package=helm.sh/helm/v4/cmd/helm
version=$(awk '$1 == "helm.sh/helm/v4" { print $2 }' "$here/go.mod")

fill() {
  need_go "$here" "Helm $version"
  # A chart sees this version, and the Kubernetes version that `helm template` assumes is the client library's.
  progress "building Helm $version (about two minutes the first time)" \
    go_build "$1/helm" "$here" "$package" -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=$version"
}

folder=$(cache_dir)/helm/$version/$(content_hash "$here"/{go.mod,go.sum,build.sh})
build_once "$folder" fill
printf '%s\n' "$folder/helm"
