#!/usr/bin/env bash
# binary.sh PACKAGE PROFILE FILE: builds a package's program for this machine's architecture, statically linked, into
# FILE.
#
# The same sources and tools give the same bytes, wherever they lie: Cargo.lock and rust-toolchain.toml fix what is
# compiled by what, the profiles of Cargo.toml how, and no path of this machine is left in the program. RUSTFLAGS are
# ignored. `make reproducible` proves it.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/e2e/lib.sh"

(($# == 3)) || die "usage: binary.sh PACKAGE PROFILE FILE"
package=$1 profile=$2 file=$(realpath -m "$3")
cd "$root"

case $(uname -sm) in
"Linux x86_64") target=x86_64-unknown-linux-musl ;;
"Linux aarch64") target=aarch64-unknown-linux-musl ;;
*) die "the program is built on Linux, x86_64 or aarch64, not on $(uname -sm): set IMAGE to one that is already in a registry" ;;
esac
command -v cargo >/dev/null || die "cargo is needed to build $package: install Rust from https://rustup.rs"
command -v cc >/dev/null || need gcc
if [[ ! -d $(rustc --print target-libdir --target "$target") ]]; then
  command -v rustup >/dev/null || die "Rust's standard library for $target is missing: install it as your Rust was installed"
  progress "adding Rust's target $target" rustup target add "$target"
fi
# Only ring has C in it; any compiler for the same machine does.
cc=CC_${target//-/_}
export "$cc=${!cc:-$(command -v musl-gcc || command -v cc)}"

# Panics name source files. Those of the workspace are relative already: its folder is not among the flags, so that what
# was compiled for one clone serves another.
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")
remap=("$folder=/target")
remap+=("$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(rustc --version --verbose | awk '$1 == "commit-hash:" { print $2 }')")
crates=${CARGO_HOME:-$HOME/.cargo}/registry/src
# Where they are unpacked has a name of cargo's, known once they are.
compgen -G "$crates/*/" >/dev/null || progress "fetching the sources of $package" cargo fetch --locked --target "$target"
for registry in "$crates"/*/; do
  remap+=("${registry%/}=/crates")
done
flags=()
for pair in "${remap[@]}"; do
  flags+=("--remap-path-prefix=$pair")
done
# Where a program may lie anywhere, each of its pointers has to be set when it starts: 24 bytes in the file, or so
# packed, a bit. A linker that does not know it says so and goes on.
flags+=("-Clink-arg=-Wl,-z,pack-relative-relocs")
# Its separator, unlike a blank, is in no path.
CARGO_ENCODED_RUSTFLAGS=$(
  IFS=$'\x1f'
  printf '%s' "${flags[*]}"
)
export CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR=$folder

progress "building $package for $target" cargo build --locked --package "$package" --target "$target" --profile "$profile"
install -D -m 755 "$folder/$target/$profile/$package" "$file"
