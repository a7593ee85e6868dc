#!/usr/bin/env bash
# bench/run.sh [--smoke] [PART...]: builds the programs as they are released, and measures. Needs two cores, and no root.
# All parts: results.md and the plots in this folder are written. --smoke: small numbers of a debug build, to check that
# everything works and that a warm admission does not execute more instructions than the limit; nothing is written.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

oha_version=1.14.0

main() {
  local arguments=() smoke='' argument oha floor webhook built malloc
  (($#)) || arguments=(--out "$root/bench")
  for argument; do
    [[ $argument != --smoke ]] || smoke=yes
  done
  (($(nproc) >= 2)) || die "the server and its client need a core each, but this machine has one core"
  command -v taskset >/dev/null || die "'taskset' is missing: install the package util-linux"
  need valgrind
  "$root/tests/cluster/build.sh" >/dev/null
  oha=$(build_oha)
  cd "$root"
  built=$(realpath -m "${CARGO_TARGET_DIR:-target}")/$([[ $smoke ]] && echo debug || echo quick)
  progress "building the benchmark" cargo build --locked --profile "$([[ $smoke ]] && echo dev || echo quick)" \
    --package bench --package floor --package acr-pull-webhook --bins
  floor=$built/floor webhook=$built/acr-pull-webhook
  if [[ -z $smoke ]]; then
    # As it is released, and the floor in the same way.
    floor=$(cache_dir)/bench/floor webhook=$(cache_dir)/bench/acr-pull-webhook
    deploy/binary.sh floor release "$floor"
    deploy/binary.sh acr-pull-webhook release "$webhook"
  fi
  # The settings of malloc in the image.
  mapfile -t malloc < <(grep -o 'MALLOC_[A-Z_]*=[0-9]*' Containerfile)
  exec env "${malloc[@]}" "CARGO_BIN_EXE_acr-pull-webhook=$webhook" "$built/bench" --oha "$oha" --floor "$floor" \
    --floor-dynamic "$built/floor" --webhook-dynamic "$built/acr-pull-webhook" "${arguments[@]}" "$@"
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
