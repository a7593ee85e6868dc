#!/usr/bin/env bash
# sbom.sh FILE: writes a software bill of materials of the webhook's program as CycloneDX JSON. It lists each crate in
# the program or used to build it, with version, licence and checksum, for amd64; the program for arm64 has the same
# crates except those for x86 processors. With SOURCE_DATE_EPOCH the result is reproducible.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

(($# == 1)) || die "usage: sbom.sh FILE"
file=$(realpath -m "$1")
tool=$("$root/deploy/cargo-tool.sh" cargo-cyclonedx 0.5.9)/cargo-cyclonedx

# cargo-cyclonedx writes a file next to each Cargo.toml, so it runs in a copy.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy_sources "$work"
cd "$work"
# Crates that are used only for the build have the scope "excluded".
progress "listing what is in the program" "$tool" cyclonedx --quiet --format json --spec-version 1.5 --all \
  --target x86_64-unknown-linux-gnu --override-filename sbom
# Replaces the path of the copy, which differs each time.
sed "s|$work|/acr-pull-webhook|g" sbom.json >sbom.named
install -D -m 644 sbom.named "$file"
