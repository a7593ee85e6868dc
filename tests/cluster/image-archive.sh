#!/usr/bin/env bash
# image-archive.sh NAME:TAG PROGRAM: writes to stdout a docker-archive of an image that holds the static PROGRAM
# and nothing else, and runs it as nobody. Only tar is needed, neither a builder nor a base image.
set -euo pipefail

(($# == 2)) || {
  echo "usage: image-archive.sh NAME:TAG PROGRAM >FILE" >&2
  exit 2
}
name=$1 program=$2 file=${2##*/}
case $(uname -m) in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) architecture=$(uname -m) ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
reproducible=(--sort=name --owner=0 --group=0 --numeric-owner --mtime=@0)
install -D -m 755 "$program" "$work/root/$file"
tar -C "$work/root" "${reproducible[@]}" -cf "$work/layer.tar" "$file"
layer=$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)
cat >"$work/config.json" <<JSON
{"architecture":"$architecture","os":"linux","config":{"Entrypoint":["/$file"],"User":"65534:65534"},"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
cat >"$work/manifest.json" <<JSON
[{"Config":"config.json","RepoTags":["$name"],"Layers":["layer.tar"]}]
JSON
tar -C "$work" "${reproducible[@]}" -cf - manifest.json config.json layer.tar
