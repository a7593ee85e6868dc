#!/usr/bin/env bash
# binary.sh PACKAGE PROFILE FILE: builds the statically linked program of a package for the architecture of this
# machine. STRIP=none keeps its symbols.
#
# The same sources, compilers, linker and glibc give the same bytes in any folder: Cargo.lock and rust-toolchain.toml pin
# sources and Rust's compiler, the profiles of Cargo.toml pin the options, and paths of this machine are removed from the
# program. RUSTFLAGS are ignored. `make reproducible` verifies this.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

(($# == 3)) || die "usage: binary.sh PACKAGE PROFILE FILE"
package=$1 profile=$2 file=$(realpath -m "$3")
cd "$root"

case $(uname -sm) in
"Linux x86_64" | "Linux aarch64") target=$(uname -m)-unknown-linux-gnu ;;
*) die "the program can only be built on Linux, x86_64 or aarch64, not on $(uname -sm): set IMAGE to an image in a registry" ;;
esac
command -v cargo >/dev/null || die "cargo is missing, which builds $package: install Rust from https://rustup.rs"
command -v cc >/dev/null || need gcc
# The image contains the program and nothing else. Since version 2.34, glibc itself reads /etc/hosts and asks the DNS;
# earlier versions load shared libraries for this, also into a static program.
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d ' ' -f 2) || true
printf '%s\n' 2.34 "$glibc" | sort --check=quiet --version-sort ||
  die "$package must be linked with glibc 2.34 or newer, but this system has ${glibc:-another C library}: set IMAGE to an image in a registry"
[[ $(cc -print-file-name=libc.a) == /* ]] || "$root/deploy/packages.sh" libc6-dev

# Panic messages contain the paths of source files. Paths in the workspace are already relative, and the folder of the
# workspace is not part of the flags, so that clones can share compiled code.
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")
remap=("$folder=/target")
remap+=("$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(rustc --version --verbose | awk '$1 == "commit-hash:" { print $2 }')")
crates=${CARGO_HOME:-$HOME/.cargo}/registry/src
# cargo chooses the name of the folder with the unpacked crates, so they must be fetched first.
compgen -G "$crates/*/" >/dev/null || progress "fetching the sources of $package" cargo fetch --locked --target "$target"
for registry in "$crates"/*/; do
  remap+=("${registry%/}=/crates")
done
flags=(-Ctarget-feature=+crt-static)
for pair in "${remap[@]}"; do
  flags+=("--remap-path-prefix=$pair")
done
# A position-independent program has a relocation of 24 bytes for each pointer; packed, a relocation takes about one
# bit. A linker without this option prints a warning and continues.
flags+=("-Clink-arg=-Wl,-z,pack-relative-relocs")
# The separator of the encoded form, unlike a space, does not occur in paths.
CARGO_ENCODED_RUSTFLAGS=$(
  IFS=$'\x1f'
  printf '%s' "${flags[*]}"
)
export CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR=$folder

progress "building $package for $target" cargo build --locked --package "$package" --target "$target" --profile "$profile"
install -D -m 755 "$folder/$target/$profile/$package" "$file"
# Not by the profile, because cargo ignores the setting for a package whose level differs from that of the others.
[[ ${STRIP:-} == none ]] || strip "$file"
