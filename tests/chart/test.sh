#!/usr/bin/env bash
# test.sh [lint]: the tests of deploy/chart. With `lint` only those that need no API server: what the chart renders, and that
# deploy/kustomize is the same. Without, also on a real API server: installing with Helm, platforms with stricter admission,
# and the order of webhooks.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
source "$here/../cluster/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../cluster/check.sh
source "$here/../cluster/check.sh"

root=$(cd "$here/../.." && pwd)
chart=$root/deploy/chart
name=acr-pull-webhook
[[ $# == 0 || $* == lint ]] || die "usage: test.sh [lint]"

work=$(mktemp -d)
processes=()
trap finish EXIT
export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm
helm=$("$here/build.sh")
go_build "$work/normalise" "$here" ./normalise
kubectl=$(command -v kubectl || true)
[[ $* == lint && -n $kubectl ]] || kubectl=$("$here/../cluster/build.sh")/kubectl

finish() {
  stop_processes
  rm -rf "$work"
}

# A control plane ends with its standard input.
stop_processes() {
  local process
  [[ -z ${hold:-} ]] || exec {hold}>&-
  for process in "${processes[@]}"; do
    wait "$process" || true
  done
  processes=()
}

render() {
  "$helm" template "$name" "$chart" --namespace "$name" "$@"
}

# row WORDS: as flags of helm, in the array $flags.
row() {
  local word
  flags=()
  for word in $1; do
    flags+=(--set "$word")
  done
}

# start_control_plane FOLDER FLAG...: with additional flags for kube-apiserver. Sets $kubectl and KUBECONFIG.
start_control_plane() {
  local folder=$1 line program bin
  shift
  bin=$("$here/../cluster/build.sh")
  mkdir "$folder.bin"
  for program in "$bin"/*; do
    ln -s "$program" "$folder.bin/"
  done
  rm "$folder.bin/kube-apiserver"
  printf '#!/usr/bin/env bash\nexec %q "$@" %s\n' "$bin/kube-apiserver" "${*@Q}" >"$folder.bin/kube-apiserver"
  chmod +x "$folder.bin/kube-apiserver"
  mkfifo "$folder.stdin"
  "$folder.bin/control-plane" --dir "$folder" <"$folder.stdin" >"$folder.ready" &
  processes+=("$!")
  exec {hold}>"$folder.stdin"
  await 60 test -s "$folder.ready" || die "the control plane is not ready; its messages are above"
  read -r line <"$folder.ready"
  export KUBECONFIG=${line#ready kubeconfig=}
  kubectl=$folder/bin/kubectl
}

# release VERB FLAG...: not waiting for Pods, because the control plane has no node.
release() {
  local verb=$1
  shift
  "$helm" "$verb" "$name" "$chart" --namespace "$name" "$@" >"$work/release"
}

uninstall() {
  "$helm" uninstall "$name" --namespace "$name" >"$work/release"
}

# everything: the objects of the chart, without CRDs.
everything() {
  "$kubectl" get mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings --output name |
    grep "$name" || true
  "$kubectl" get all,resourcequotas,configmaps,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,leases --all-namespaces --output name |
    grep "$name" || true
}

# Pods are deleted a moment after their Deployment.
nothing_left() {
  [[ -z $(everything) ]]
}

# As GKE does: the two priority classes of the system only in namespaces with a ResourceQuota for them.
limited_priority_classes() {
  cat <<'YAML'
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: ResourceQuota
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: ResourceQuotaConfiguration
      limitedResources:
        - resource: pods
          matchScopes:
            - scopeName: PriorityClass
              operator: In
              values: [system-node-critical, system-cluster-critical]
YAML
}

# shellcheck source-path=SCRIPTDIR source=values.sh
source "$here/values.sh"
# shellcheck source-path=SCRIPTDIR source=rendering.sh
source "$here/rendering.sh"
if [[ $* != lint ]]; then
  limited_priority_classes >"$work/admission.yaml"
  start_control_plane "$work/cluster" --admission-control-config-file="$work/admission.yaml"
  # shellcheck source-path=SCRIPTDIR source=installation.sh
  source "$here/installation.sh"
  # shellcheck source-path=SCRIPTDIR source=platforms.sh
  source "$here/platforms.sh"
  # shellcheck source-path=SCRIPTDIR source=ordering.sh
  source "$here/ordering.sh"
  # shellcheck source-path=SCRIPTDIR source=documents.sh
  source "$here/documents.sh"
fi
summary
