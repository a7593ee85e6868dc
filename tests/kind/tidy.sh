#!/usr/bin/env bash
# Removes what podman leaves on this machine after the last cluster: its network, cgroups, mounts and folders.
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

own_podman
# A cluster that starts holds this lock: it has a network before it has containers.
exec {lock}>"$storage/starting.lock"
flock --nonblock "$lock" || exit 0
[[ -z $(podman ps --all --quiet) ]] || exit 0
podman network rm kind >/dev/null 2>&1 || true
podman volume prune --force >/dev/null
find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} \; 2>/dev/null || true
umount "$storage/storage/overlay" 2>/dev/null || true
rm -rf --one-file-system "$runtime"
[[ ! -d /lib/modules ]] || rmdir --ignore-fail-on-non-empty /lib/modules
