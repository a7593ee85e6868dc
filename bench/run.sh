#!/usr/bin/env bash
# bench/run.sh [--smoke] [PART...]: builds what takes part, as it is released, and measures. Needs no root, and two cores.
# All parts: results.md and the plots beside this script are written anew. --smoke: small numbers, and nothing is written.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/e2e/lib.sh"

oha_version=1.14.0

main() {
  local profile=release arguments=(--out "$root/bench") programs floor webhook oha quick
  for argument; do
    if [[ $argument == --smoke ]]; then
      # Whole-program optimisation would cost minutes, and no figure is kept.
      profile=quick arguments=()
    fi
  done
  (($(nproc) >= 2)) || die "the server gets one core and whoever asks it the other: this machine has only one"
  command -v taskset >/dev/null || die "'taskset' is missing: install the package util-linux"
  command -v valgrind >/dev/null || "$root/tests/cluster/packages.sh" valgrind
  programs=$(cache_dir)/bench/$profile
  "$root/tests/cluster/build.sh" >/dev/null
  oha=$(build_oha)
  floor=$programs/floor webhook=$programs/acr-pull-webhook
  "$root/deploy/binary.sh" floor "$profile" "$floor"
  "$root/deploy/binary.sh" acr-pull-webhook "$profile" "$webhook"
  cd "$root"
  progress "building the benchmark" \
    cargo build --locked --package bench --package floor --package acr-pull-webhook --bins --profile quick
  quick=$(realpath -m "${CARGO_TARGET_DIR:-target}")/quick
  exec env "CARGO_BIN_EXE_acr-pull-webhook=$webhook" "$quick/bench" --oha "$oha" \
    --floor "$floor" --floor-dynamic "$quick/floor" --webhook-dynamic "$quick/acr-pull-webhook" "${arguments[@]}" "$@"
}

build_oha() {
  local folder
  folder=$(cache_dir)/oha/$oha_version
  build_once "$folder" fill_oha
  echo "$folder/bin/oha"
}

fill_oha() {
  progress "building oha $oha_version (first time: some four minutes on two cores)" \
    cargo install --locked oha --version "$oha_version" --no-default-features --features rustls --root "$1"
}

main "$@"; exit
