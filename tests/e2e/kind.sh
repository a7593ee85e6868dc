#!/usr/bin/env bash
# kind.sh up|kubeconfig|down: a kind cluster for the demo. kind.sh e2e: another, for one end-to-end run, deleted after it.
#
#   KIND=kind                       the kind program
#   KIND_NODE_IMAGE=                the node image; empty: the one that comes with kind
#   KIND_EXPERIMENTAL_PROVIDER=     as kind knows it: podman, nerdctl
#   NODE_EXEC="docker exec"         runs a command on a node: given the node's name and the command (podman exec, with that provider)
#   CONTAINER_TOOL=                 docker, podman or buildah, to build images
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

kind=${KIND:-kind}

main() {
  command -v "$kind" >/dev/null ||
    die "'$kind' is not there: install kind (go install sigs.k8s.io/kind@v0.33.0) and Docker, or use 'make e2e', which needs neither"
  case ${1:-} in
  up) up acr-pull-demo ;;
  kubeconfig) kubeconfig_of acr-pull-demo ;;
  down) "$kind" delete cluster --name acr-pull-demo ;;
  e2e)
    name=acr-pull-e2e-$$
    trap '"$kind" delete cluster --name "$name"' EXIT
    up "$name"
    "$root/tests/e2e/run.sh"
    ;;
  *) die "usage: kind.sh up|kubeconfig|down|e2e" ;;
  esac
}

kubeconfig_of() {
  printf '%s/kind/%s.kubeconfig\n' "$(cache_dir)" "$1"
}

# up NAME: creates the cluster unless it is there, and exports its KUBECONFIG.
up() {
  local image=()
  KUBECONFIG=$(kubeconfig_of "$1")
  export KUBECONFIG
  mkdir -p "${KUBECONFIG%/*}"
  if "$kind" get clusters 2>/dev/null | grep -qx "$1"; then
    "$kind" export kubeconfig --name "$1" --kubeconfig "$KUBECONFIG" 2>/dev/null
    return
  fi
  [[ -z ${KIND_NODE_IMAGE:-} ]] || image=(--image "$KIND_NODE_IMAGE")
  # Two nodes: the API server and a Pod's kubelet are rarely on the same machine.
  "$kind" create cluster --name "$1" "${image[@]}" --kubeconfig "$KUBECONFIG" --wait 180s --config - >&2 <<'YAML'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
  - role: worker
# The default of newer node images; older ones need to be told.
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
YAML
}

main "$@"
