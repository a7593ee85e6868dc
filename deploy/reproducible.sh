#!/usr/bin/env bash
# reproducible.sh FILE: builds the webhook's program twice, from two copies of the repository in different folders, and
# writes it to FILE if both builds are identical. PROFILE is the cargo profile; default: release.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

(($# == 1)) || die "usage: reproducible.sh FILE"
file=$(realpath -m "$1")
package=acr-pull-webhook profile=${PROFILE:-release}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build FOLDER: builds in a folder with separate sources, target folder and CARGO_HOME. Both builds share the downloaded
# crates.
build() {
  local folder=$work/$1 home=${CARGO_HOME:-$HOME/.cargo}
  mkdir -p "$folder/sources" "$folder/cargo" "$home/registry"
  copy_sources "$folder/sources"
  ln -s "$(realpath "$home/registry")" "$folder/cargo/registry"
  if [[ -e $home/config.toml ]]; then
    cp "$home/config.toml" "$folder/cargo/"
  fi
  CARGO_HOME=$folder/cargo CARGO_TARGET_DIR=$folder/target "$folder/sources/deploy/binary.sh" "$package" "$profile" "$folder/program"
  sha256sum "$folder/program" | cut -d ' ' -f 1
}

first=$(build first)
second=$(build "the/second, elsewhere")
say "$first  first"
say "$second  second"
if [[ $first != "$second" ]]; then
  kept=$(mktemp -d)
  mv "$work/first/program" "$kept/first"
  mv "$work/the/second, elsewhere/program" "$kept/second"
  die "the two programs differ: compare $kept/first and $kept/second"
fi
install -D -m 755 "$work/first/program" "$file"
say "both builds are identical: $file"
