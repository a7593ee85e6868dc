#!/usr/bin/env bash
# Installs mdBook, which renders the documents, and prints the path of its program. The first run takes about three minutes.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

version=0.5.2

# Without the server and the watcher of files, which `mdbook build` does not need.
fill() {
  progress "installing mdBook $version" cargo install --locked "mdbook@$version" --no-default-features --features search \
    --root "$1"
}

folder=$(cache_dir)/mdbook/$version
build_once "$folder" fill
printf '%s\n' "$folder/bin/mdbook"
