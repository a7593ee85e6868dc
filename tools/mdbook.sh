#!/usr/bin/env bash
# Installs mdBook, which renders the documents, and prints the path of its program.
set -euo pipefail

# Without the server and the watcher of files, which `mdbook build` does not need.
folder=$("$(dirname "${BASH_SOURCE[0]}")/../deploy/cargo-tool.sh" mdbook 0.5.2 --no-default-features --features search)
printf '%s\n' "$folder/mdbook"
