#!/usr/bin/env bash
# Builds Prometheus and promtool and prints their folder. The first build takes some minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
source "$here/../cluster/lib.sh"

module=github.com/prometheus/prometheus
version=$(awk -v module=$module '$1 == module { print $2 }' "$here/go.mod")

fill() {
  local program
  need_go "$here" "Prometheus $version"
  for program in promtool prometheus; do
    # The tag drops the clients of clouds, by which a Prometheus finds its targets there.
    progress "building $program $version (some minutes the first time)" \
      go_build "$1/$program" "$here" $module/cmd/$program -tags remove_all_sd -ldflags "-s -w"
  done
}

folder=$(cache_dir)/prometheus/$version/$(content_hash "$here"/{go.mod,go.sum,build.sh})
build_once "$folder" fill
printf '%s\n' "$folder"
