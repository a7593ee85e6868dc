# What runs the nodes: Docker, the provider that the user names, or podman with settings of this project. Sourced, never
# run.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of the scripts that source this file, and for them

# choose_provider: sets provider and image. Docker is the common case; without it, root can start podman.
choose_provider() {
  provider=${KIND_EXPERIMENTAL_PROVIDER:-docker} image=${KIND_NODE_IMAGE:-$(published_image)}
  if has_image; then
    return
  elif [[ -n ${KIND_EXPERIMENTAL_PROVIDER:-} ]]; then
    die "KIND_EXPERIMENTAL_PROVIDER=$provider does not work here, or cannot pull $image"
  elif [[ $(uname -s)$EUID == Linux0 ]]; then
    provider=own
    own_podman
    need_podman
    image=${KIND_NODE_IMAGE:-$("$here/node-image.sh")}
    # kind mounts this folder of the machine into the nodes.
    mkdir -p /lib/modules
  else
    die "a local cluster needs Docker, running and able to pull $image ('docker info' shows it), or root on Linux"
  fi
}

# has_image: whether the provider works, and has the node image or can pull it.
has_image() {
  "$provider" info >/dev/null 2>&1 || return 1
  "$provider" image inspect "$image" >/dev/null 2>&1 || (progress "pulling $image" "$provider" pull "$image")
}

built_image() {
  [[ $image == localhost/acr-pull-kind-node:* ]]
}

use_provider() {
  provider=$(<"$state/provider") tool=$provider
  kind=$(kind_program)
  if [[ $provider == own ]]; then
    tool=podman
    own_podman
  fi
  export KIND_EXPERIMENTAL_PROVIDER=$tool
}

# remove_orphans: removes what podman does not know about, because it was killed while it created a container: processes of
# nodes, and network namespaces without processes that are younger than the cluster.
remove_orphans() {
  local conmon id namespace
  [[ ! -f $state/complete ]] || return 0
  for conmon in $(pgrep -f -- "^/usr/bin/conmon .* -n $name-(control-plane|worker) --exit-dir $runtime/" || true); do
    id=$(tr '\0' '\n' <"/proc/$conmon/cmdline" | grep -A 1 -x -e -c | tail -n 1) || continue
    kill -KILL "$conmon" 2>/dev/null || true
    find /sys/fs/cgroup -path "*/libpod-$id*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u |
      xargs --no-run-if-empty kill -KILL 2>/dev/null || true
  done
  { find /run/netns -mindepth 1 -newer "$state/provider" -printf '%f\n' 2>/dev/null || true; } | while read -r namespace; do
    [[ -n $(ip netns pids "$namespace") ]] || ip netns delete "$namespace"
  done
}
