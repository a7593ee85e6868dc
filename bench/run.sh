#!/usr/bin/env bash
# bench/run.sh [PART...]: builds the programs as they are released, and measures. Needs two cores, and no root. All parts:
# results.md and the plots in this folder are written.
# bench/run.sh --smoke [PART...]: small numbers of a debug build, to check that everything works and that a warm admission
# does not execute more instructions than the limit; nothing is written. Without parts, all but 'peer', whose
# build takes longer than all of --smoke.
# bench/run.sh --profile FOLDER: draws flame graphs of warm admissions in FOLDER.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

main() {
  local arguments=("$@") smoke='' fast=() oha inferno peer profile targets baseline webhook built malloc
  case ${1:-} in
  '') arguments=(--out "$root/bench") ;;
  --smoke) smoke=yes ;;
  --profile)
    need perf linux-perf
    # It reads all samples of perf, which takes long without optimisation.
    inferno=$(CARGO_PROFILE_RELEASE_OPT_LEVEL=1 "$root/deploy/cargo-tool.sh" inferno 0.12.8)
    arguments=(--profile "$(realpath "${2:?usage: run.sh --profile FOLDER}")" --inferno "$inferno")
    # perf needs the symbols.
    export STRIP=none
    ;;
  esac
  (($(nproc) >= 2)) || die "the server and its client need a core each, but this machine has one core"
  command -v taskset >/dev/null || die "'taskset' is missing: install the package util-linux"
  need valgrind
  "$root/tests/cluster/build.sh" >/dev/null
  cd "$root"
  # The client has a core of its own, but a slow client would see longer latencies.
  [[ $smoke ]] || fast=(CARGO_PROFILE_RELEASE_OPT_LEVEL=3 CARGO_PROFILE_RELEASE_LTO=thin)
  oha=$(env "${fast[@]}" "$root/deploy/cargo-tool.sh" oha 1.14.0 --no-default-features --features rustls)/oha
  if [[ -z $* || " $* " == *" peer "* ]]; then
    peer=$(build_peer)
    arguments+=(--peer "$peer")
  fi
  profile=benchmark targets=(--package bench --package baseline --package acr-pull-webhook --bins)
  # Those of `make test`, which cargo has compiled for it: other targets need other features of the dependencies.
  [[ -z $smoke ]] || profile=dev targets=(--workspace --bins --tests)
  built=$(realpath -m "${CARGO_TARGET_DIR:-target}")/${profile/dev/debug}
  progress "building the benchmark" cargo build --locked --profile "$profile" "${targets[@]}"
  baseline=$built/baseline webhook=$built/acr-pull-webhook
  if [[ -z $smoke ]]; then
    # As it is released, and the baseline in the same way.
    baseline=$(cache_dir)/bench/baseline webhook=$(cache_dir)/bench/acr-pull-webhook
    deploy/binary.sh baseline release "$baseline"
    deploy/binary.sh acr-pull-webhook release "$webhook"
  fi
  # The settings of malloc in the image.
  mapfile -t malloc < <(grep -o 'MALLOC_[A-Z_]*=[0-9]*' Containerfile)
  exec env "${malloc[@]}" "CARGO_BIN_EXE_acr-pull-webhook=$webhook" "$built/bench" --oha "$oha" --baseline "$baseline" \
    --baseline-dynamic "$built/baseline" --webhook-dynamic "$built/acr-pull-webhook" "${arguments[@]}"
}

build_peer() {
  local folder
  folder=$(cache_dir)/bench/peer-$(content_hash bench/peer/{go.mod,go.sum} bench/peer/mlog/mlog.go)
  build_once "$folder" fill_peer
  echo "$folder/webhook"
}

fill_peer() {
  command -v go >/dev/null || die "'go' is missing, which builds the peer: install it from https://go.dev/dl/"
  progress "building azure-workload-identity (first time: about a minute on two cores)" \
    env CGO_ENABLED=0 go -C bench/peer build -ldflags "-s -w" -o "$1/webhook" github.com/Azure/azure-workload-identity/cmd/webhook
}

main "$@"; exit
