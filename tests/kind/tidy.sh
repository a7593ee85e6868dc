#!/usr/bin/env bash
# Removes what podman leaves on this machine after the last cluster of this cache folder: its network, cgroups, mounts and
# folders.
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# remove_network: removes the network of the clusters. If podman was killed while it connected a container, it does not
# know about the connection: then the bridge, the entry of the DNS server and forwarded ports are left.
remove_network() {
  local bridge subnet names=/run/containers/networks/aardvark-dns
  bridge=$(podman network inspect "$network" --format '{{.NetworkInterface}}' 2>/dev/null) || return 0
  subnet=$(podman network inspect "$network" --format '{{range .Subnets}}{{.Subnet}}{{"\n"}}{{end}}' | grep -F .)
  podman network rm "$network" >/dev/null
  remove_forwarding "$subnet"
  ip link delete "$bridge" 2>/dev/null || true
  if [[ -f $names/$network ]]; then
    rm "$names/$network"
    # The server, if it was started, ends when it has no network.
    [[ ! -s $names/aardvark.pid ]] || kill -HUP "$(<"$names/aardvark.pid")" 2>/dev/null || true
  fi
}

# remove_forwarding SUBNET: removes the rules that forward ports of this machine to SUBNET. Otherwise a program that is given
# such a port later cannot be reached.
remove_forwarding() {
  local rules port
  rules=$(iptables -t nat -S 2>/dev/null | grep '^-A NETAVARK-' || true)
  sed -n "s|.* -s $1 .* --dport \([0-9]*\) .*|\1|p" <<<"$rules" | sort -u | while read -r port; do
    # xargs removes the quotes of the comments.
    grep -e "--dport $port " <<<"$rules" | sed 's/^-A/-D/' | xargs -L 1 iptables -t nat
  done
}

own_podman
# A cluster that starts holds this lock: it has a network before it has containers.
exec {lock}>"$storage/starting.lock"
flock --nonblock "$lock" || exit 0
[[ -z $(podman ps --all --quiet) ]] || exit 0
remove_network
podman volume prune --force >/dev/null
# Only cgroups without processes can be removed.
find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} \; 2>/dev/null || true
umount "$storage/storage/overlay" 2>/dev/null || true
rm -rf --one-file-system "$runtime"
# The clusters of another cache folder mount /lib/modules, too.
if [[ -d /lib/modules ]] && ! compgen -G "/run/acr-pull-*" >/dev/null; then
  rmdir --ignore-fail-on-non-empty /lib/modules
fi
