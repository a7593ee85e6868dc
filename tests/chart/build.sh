#!/usr/bin/env bash
# Builds Helm and prints its path. The first build takes about two minutes on two cores.
# HELM_VERSION=3: the last release of Helm 3, and not Helm 4.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
source "$here/../cluster/lib.sh"

major=${HELM_VERSION:-4}
case $major in
4) pins=go ;;
3) pins=helm3 ;;
*) die "HELM_VERSION is 3 or 4, not '$major'" ;;
esac
module=helm.sh/helm/v$major
version=$(awk -v module="$module" '$1 == module { print $2 }' "$here/$pins.mod")

# The version of Kubernetes that `helm template` assumes is that of the client library. Helm 3 has to be told.
flags="-s -w -X $module/internal/version.version=$version"
if ((major == 3)); then
  minor=$(awk '$1 == "k8s.io/client-go" { split($2, parts, "."); print parts[2] }' "$here/$pins.mod")
  for package in chartutil lint/rules; do
    flags+=" -X $module/pkg/$package.k8sVersionMajor=1 -X $module/pkg/$package.k8sVersionMinor=$minor"
  done
fi

fill() {
  need_go "$here" "Helm $version"
  progress "building Helm $version (about two minutes the first time)" \
    go_build "$1/helm" "$here" "$module/cmd/helm" -modfile="$pins.mod" -ldflags "$flags"
}

folder=$(cache_dir)/helm/$version/$(content_hash "$here"/{$pins.mod,$pins.sum,build.sh})
build_once "$folder" fill
printf '%s\n' "$folder/helm"
