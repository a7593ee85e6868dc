#!/usr/bin/env bash
# cargo-tool.sh NAME VERSION [FLAG...]: installs a package of crates.io once, with these flags of `cargo install`, and prints
# the folder of its programs. These programs run for seconds, so they are built fast rather than to be fast; the variables
# CARGO_PROFILE_RELEASE_* of the caller have precedence.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

(($# >= 2)) || die "usage: cargo-tool.sh NAME VERSION [FLAG...]"
name=$1 version=$2
shift 2
flags=("$@")
command -v cargo >/dev/null || die "'cargo' is missing, which builds $name: install it from https://rustup.rs"
export CARGO_PROFILE_RELEASE_OPT_LEVEL=${CARGO_PROFILE_RELEASE_OPT_LEVEL:-0}
export CARGO_PROFILE_RELEASE_LTO=${CARGO_PROFILE_RELEASE_LTO:-off}
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=${CARGO_PROFILE_RELEASE_CODEGEN_UNITS:-16}

install_tool() {
  progress "building $name $version (first time: up to some minutes on two cores)" \
    cargo install --locked "$name@$version" "${flags[@]}" --root "$1"
}

folder=$(cache_dir)/$name/$version-$CARGO_PROFILE_RELEASE_OPT_LEVEL-$CARGO_PROFILE_RELEASE_LTO
build_once "$folder" install_tool
printf '%s\n' "$folder/bin"
