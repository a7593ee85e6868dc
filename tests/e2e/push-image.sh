#!/usr/bin/env bash
# push-image.sh REPOSITORY:TAG...: puts small private images of those names into the registry behind the emulator,
# where they are not there yet. Each has content of its own: the kubelet lets a Pod use an image that is already on the
# node only with a credential that pulled this very content.
set -euo pipefail
# shellcheck source=tests/e2e/emulator.sh
source "$(dirname "${BASH_SOURCE[0]}")/emulator.sh"

(($#)) || die "usage: push-image.sh REPOSITORY:TAG..."
need skopeo
need curl
use_cluster
work=$(mktemp -d)
forwarder=
stop() {
  [[ -z $forwarder ]] || kill "$forwarder" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

fill() {
  need_go "$root/tests/e2e/app" "the test image"
  go_build "$1/app" "$root/tests/e2e/app" . -ldflags "-s -w"
}
folder=$(cache_dir)/app/$(content_hash "$root"/tests/e2e/app/{go.mod,main.go})
build_once "$folder" fill

# The registry listens on its Pod's loopback only, which the emulator and a port-forward reach.
: >"$work/port"
# Not by the function kube, which would run in a shell of its own: its kubectl would outlive that shell.
"$KUBECTL" --namespace "$emulator_namespace" port-forward deployment/azure-emulator --address 127.0.0.1 :5000 \
  >"$work/port" 2>"$work/error" &
forwarder=$!
forwarded() {
  kill -0 "$forwarder" 2>/dev/null || die "kubectl port-forward ended: $(cat "$work/error")"
  registry=$(sed -n 's/^Forwarding from \(127.0.0.1:[0-9]*\) .*/\1/p' "$work/port")
  [[ -n $registry ]] && curl --silent --fail --max-time 2 --output /dev/null "http://$registry/v2/"
}
wait_for 30 "the emulator's registry answers" forwarded

for name; do
  repository=${name%:*} tag=${name##*:}
  accept='Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json'
  curl --silent --fail --max-time 10 --head --header "$accept" --output /dev/null "http://$registry/v2/$repository/manifests/$tag" && continue
  # Bytes after the end of a program change what it is, not what it does.
  { cat "$folder/app" && printf '%s' "$name"; } >"$work/app"
  chmod 755 "$work/app"
  "$root/tests/cluster/image-archive.sh" "$name" "$work/app" >"$work/image.tar"
  skopeo --insecure-policy copy --quiet --dest-tls-verify=false "docker-archive:$work/image.tar" "docker://$registry/$name" ||
    die "could not push $name to the emulator's registry"
  say "pushed $name"
done
