#!/usr/bin/env bash
# sbom.sh FILE: a bill of materials of the webhook's program, CycloneDX as JSON: each crate in it or used to build it,
# with version, licence and checksum. It is amd64's; arm64's program has the same, less what looks at an x86 processor.
# With SOURCE_DATE_EPOCH it is the same each time.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/e2e/lib.sh"

(($# == 1)) || die "usage: sbom.sh FILE"
file=$(realpath -m "$1")
version=0.5.9
tool=$(cache_dir)/cargo-cyclonedx/$version
[[ -x $tool/bin/cargo-cyclonedx ]] ||
  progress "installing cargo-cyclonedx (some minutes, once)" cargo install --quiet --locked "cargo-cyclonedx@$version" --root "$tool"

# It writes beside each Cargo.toml, so into a copy.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -C "$root" -cf - Cargo.toml Cargo.lock src tests | tar -C "$work" -xf -
cd "$work"
# What only builds is told as such (scope: excluded).
progress "listing what is in the program" "$tool/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --all \
  --target x86_64-unknown-linux-musl --override-filename sbom
# Where the copy was says nothing.
sed "s|$work|/acr-pull-webhook|g" sbom.json >sbom.named
install -D -m 644 sbom.named "$file"
