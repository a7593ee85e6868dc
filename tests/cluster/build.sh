#!/usr/bin/env bash
# Builds the one Go program that is etcd, all of Kubernetes and kubectl, and prints the folder that has each by name.
# The first build takes about five minutes on two cores; afterwards it only prints.
# KUBERNETES=oldest: of the oldest release that is supported, and not of the newest.
set -euo pipefail
shopt -s extglob
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

module=$here/kubernetes
case ${KUBERNETES:-newest} in
newest) pins=go ;;
oldest) pins=oldest ;;
*) die "KUBERNETES is newest or oldest, not '$KUBERNETES'" ;;
esac
names=(control-plane etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl kubeadm)
version=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2 } $1 == "require" && $2 == "k8s.io/kubernetes" { print $3 }' "$module/$pins.mod")

fill() {
  local out=$1 name minor stamp=k8s.io/component-base/version
  need_go "$module" "Kubernetes $version"
  minor=${version#v*.}
  minor=${minor%%.*}
  mkdir "$out/bin"
  # Without the stamps the API server calls itself v0.0.0, and clients trust versions. The tag drops the clients of
  # clouds from releases before 1.31.
  progress "building Kubernetes $version (first time: downloads about 200 MB, then about 5 minutes on two cores)" \
    go_build "$out/bin/kubernetes" "$module" . -modfile="$pins.mod" -tags providerless -ldflags \
    "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=$minor -X $stamp.gitTreeState=clean"
  for name in "${names[@]}"; do
    ln -s kubernetes "$out/bin/$name"
  done
  progress "building the pause image" go_build "$out/pause" "$module" ./pause -ldflags "-s -w"
  "$here/image-archive.sh" cluster.local/pause:1 "$out/pause" >"$out/pause.tar"
}

sources=("$module"/{$pins.mod,$pins.sum,main.go,pause/main.go} "$module"/controlplane/!(*_test).go)
folder=$(cache_dir)/kubernetes/$version/$(content_hash "${sources[@]}" "$here"/{build,image-archive}.sh)
build_once "$folder" fill
printf '%s\n' "$folder/bin"
