#!/usr/bin/env bash
# test-other-cache.sh leave PROGRAM NODE | remove NODE: for test.sh, with a cache folder of its own in XDG_CACHE_HOME.
# 'leave' starts NODE in the network of this cache folder and kills its processes: podman's state, the bridge, the entry
# of the DNS server and the forwarded port are left, as they are of a cluster that was killed.
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

leave() {
  podman network create "$network"
  podman run --detach --name "$2" --network "$network" --publish 127.0.0.1::6443 --rootfs "${1%/*}" "/${1##*/}"
  # shellcheck disable=SC2046 # two numbers
  kill -KILL $(podman inspect "$2" --format '{{.State.ConmonPid}} {{.State.Pid}}')
}

remove() {
  ip link show "$(podman network inspect "$network" --format '{{.NetworkInterface}}')"
  podman rm --force "$1"
  "$here/tidy.sh"
}

own_podman
"$@"
