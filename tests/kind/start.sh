#!/usr/bin/env bash
# start.sh NAME STATE: creates the kind cluster NAME and waits until a Pod on it ran. Started by 'cluster.sh up'.
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=$1 state=$2 provider='' image=''
export KUBECONFIG=$state/kubeconfig

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
  config | flock --shared --close "$storage/starting.lock" \
    "$kind" create cluster --name "$name" --image "$image" --kubeconfig "$KUBECONFIG" --retain --config - \
    --wait "$(built_image && echo 0s || echo 300s)" >"$state/create.log" 2>&1 ||
    gave_up "kind could not create it"
  if built_image; then
    connect_pods
    probe
  fi
  touch "$state/complete"
  say "the cluster is up after $((SECONDS - started)) s"
}

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

# connect_pods: gives each node the range of addresses that Kubernetes chose for its Pods, and routes to the others'.
connect_pods() {
  local nodes node range routes address='{.status.addresses[?(@.type=="InternalIP")].address}'
  nodes=$("$kubectl" get nodes -o "jsonpath={range .items[*]}{.metadata.name} {.spec.podCIDR} $address{'\n'}{end}")
  while read -r node range _; do
    routes=$(awk -v node="$node" '$1 != node { print "ip route replace " $2 " via " $3 }' <<<"$nodes")
    podman exec --interactive "$node" sh -ec "cat >/etc/cni/net.d/10-pods.conflist; $routes" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "$range"}]],
    "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  done <<<"$nodes"
  "$kubectl" wait node --all --for=condition=Ready --timeout=120s >/dev/null || gave_up "its nodes are not ready"
}

# A Ready node proves little. This Pod proves its image, its network, and that Service traffic reaches its target.
probe() {
  "$kubectl" apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: cluster-probe, namespace: default}
spec:
  restartPolicy: Never
  containers: [{name: probe, image: "cluster.local/pause:1", imagePullPolicy: Never, args: ["10.96.0.1:443"]}]
YAML
  "$kubectl" wait pod cluster-probe --for=jsonpath='{.status.phase}'=Succeeded --timeout=120s >/dev/null ||
    gave_up "a Pod could not reach the Service 'kubernetes': $("$kubectl" logs cluster-probe 2>&1)"
  "$kubectl" delete pod cluster-probe --wait=false >/dev/null
}

gave_up() {
  tail -n 20 "$state/create.log" >&2
  die "the cluster '$name' did not start: $1. 'make cluster-down' removes it"
}

main
