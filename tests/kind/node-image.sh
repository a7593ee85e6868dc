#!/usr/bin/env bash
# Prints the name of a node image for kind in this project's podman: the one that kind publishes if it can be pulled,
# otherwise one that is built here from package registries alone: kind's own files (from its Go module), Debian's
# packages, and the Kubernetes that tests/cluster/build.sh builds. The latter takes about two minutes, once.
# KUBERNETES=oldest: of the oldest release that the webhook supports.
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The packages of kind's images/base/Dockerfile, except those for network storage; containerd and runc are Debian's too.
packages=systemd,containerd,runc,containernetworking-plugins,iptables,nftables,conntrack,iproute2
packages+=,ethtool,mount,kmod,procps

own_podman
need_podman
published=$(published_image)
image=localhost/acr-pull-kind-node:${KUBERNETES:-newest}-$(content_hash "$here"/{go.mod,node-image.sh,node-root.sh} \
  "$root"/tests/cluster/{build.sh,kubernetes/{main.go,pause/main.go,go.mod,oldest.mod}})

make_image() {
  local suite folder
  suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  folder=$(mktemp -d "$storage/node-image.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$folder'" EXIT
  # Nobody reads documents or translations on a node, and an image that was not completed is not used.
  TMPDIR=$folder mmdebstrap --mode=root --variant=essential --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
    --customize-hook="'$here/node-root.sh' '$bin' '$(kind_sources)' \"\$1\"" "$suite" "$folder/root.tar"
  podman import --change 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]' --change 'ENV container=podman' \
    --change 'STOPSIGNAL SIGRTMIN+3' "$folder/root.tar" "$image"
  # Images of earlier inputs that nothing uses; another checkout may still need a recent one.
  podman image prune --all --force --filter until=168h >/dev/null
}

exec {lock}>"$storage/node-image.lock"
flock "$lock"
if podman image exists "$image"; then
  echo "$image"
elif podman image exists "$published" || podman pull --quiet "$published" >/dev/null 2>&1; then
  echo "$published"
else
  bin=$("$root/tests/cluster/build.sh")
  need mmdebstrap
  progress "building a node image for kind, since kind's own cannot be pulled (two minutes, once)" make_image
  echo "$image"
fi
