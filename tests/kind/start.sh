#!/usr/bin/env bash
# start.sh NAME STATE: creates the kind cluster NAME and waits until a Pod on it ran. Started by 'cluster.sh up'.
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/kind/provider.sh
source "$here/provider.sh"
# shellcheck source=tests/kind/pods.sh
source "$here/pods.sh"

name=$1 state=$2 provider='' image=''
export KUBECONFIG=$state/kubeconfig KUBECACHEDIR=$state/kubectl-cache

main() {
  local started=$SECONDS
  choose_provider
  export KIND_EXPERIMENTAL_PROVIDER=${provider/own/podman}
  kind=$(kind_program)
  (umask 077 && mkdir -p "$state")
  echo "$provider" >"$state/provider"
  kubectl=${KUBECTL:-kubectl}
  if built_image; then
    kubectl=$("$root/tests/cluster/build.sh")/kubectl
  fi
  command -v "$kubectl" >"$state/kubectl" || die "kubectl is missing: install it, or set KUBECTL"
  say "starting the kind cluster '$name' with ${provider/own/podman} and $image ..."
  # kind would hand the caller's proxy to the nodes, where it is asked for the emulated registries.
  unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy
  # The lock keeps tidy.sh from removing the network; the nodes must not inherit it.
  mkdir -p "$storage"
  exec {starting}>"$storage/starting.lock"
  flock --shared "$starting"
  [[ $provider != own ]] || create_network
  config | "$kind" create cluster --name "$name" --image "$image" --kubeconfig "$KUBECONFIG" --retain --config - \
    --wait "$(built_image && echo 0s || echo 300s)" >"$state/create.log" 2>&1 {starting}>&- ||
    gave_up "kind could not create it"
  exec {starting}>&-
  if built_image; then
    connect_pods
    probe
  fi
  touch "$state/complete"
  say "the cluster is up after $((SECONDS - started)) s"
}

# create_network: kind would create it, too, but fails if another cluster that starts at the same time creates it first.
create_network() (
  exec {lock}>"$storage/network.lock"
  flock "$lock"
  podman network exists "$network" || podman network create "$network" >"$state/network.log" 2>&1 ||
    die "podman could not create the network $network: $(<"$state/network.log")"
)

# Two nodes: the API server and a Pod's kubelet are rarely on the same machine.
config() {
  cat <<YAML
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
  - role: worker
# The default of newer node images.
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
YAML
  ! built_image || cat <<YAML
# The built image has neither kindnet, see connect_pods, nor CoreDNS, which no test needs.
networking: {disableDefaultCNI: true}
kubeadmConfigPatches:
  - |
    kind: InitConfiguration
    skipPhases: [preflight, addon/coredns]
  # Root may lack the right to lower a score for the OOM killer, as in a container or a small virtual machine.
  - |
    kind: KubeletConfiguration
    localStorageCapacityIsolation: false
    featureGates: {KubeletInUserNamespace: true}
    $([[ ${KUBERNETES:-newest} == oldest ]] || echo "failCgroupV1: false")
YAML
}

gave_up() {
  tail -n 20 "$state/create.log" >&2
  die "the cluster '$name' did not start: $1. 'make cluster-down' removes it"
}

main
