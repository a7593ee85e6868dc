# Shell functions shared by the scripts that deploy and try the webhook on a cluster. Sourced, never run.
# shellcheck shell=bash
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../cluster/lib.sh"

# Without it a failure inside $(...) would go unnoticed.
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
local_cluster=$root/tests/cluster/cluster.sh

# What is generated for one deployment, and may be looked at afterwards.
state_dir() {
  local folder
  folder=$(cache_dir)/deploy/$(printf '%s' "${KUBECONFIG:?}" | sha256sum | cut -c 1-12)
  mkdir -p "$folder"
  chmod 700 "$folder"
  printf '%s\n' "$folder"
}

# The cluster ----------------------------------------------------------------

# use_cluster: exports KUBECONFIG, KUBECTL and CLUSTER (local, kind or other): the cluster of KUBECONFIG, or, where
# that is not set, the local one, which must be up.
use_cluster() {
  local own provider
  own=$("$local_cluster" kubeconfig 2>/dev/null || true)
  export KUBECONFIG=${KUBECONFIG:-$own}
  [[ -n $KUBECONFIG ]] || die "there is no cluster: set KUBECONFIG to one of yours, or run 'make cluster'"
  if [[ $(realpath -m "$KUBECONFIG") == "$(realpath -m "${own:-/dev/null}")" ]]; then
    export CLUSTER=local
    # Its kubectl comes with it: no other of the right version need be there.
    export KUBECTL=${KUBECTL:-$("$root/tests/cluster/build.sh")/kubectl}
    return
  fi
  export KUBECTL=${KUBECTL:-kubectl}
  command -v "$KUBECTL" >/dev/null || die "kubectl is needed for the cluster of KUBECONFIG=$KUBECONFIG: install it, or set KUBECTL"
  provider=$(kube get nodes -o 'jsonpath={.items[0].spec.providerID}') || die "the cluster of KUBECONFIG=$KUBECONFIG does not answer"
  case $provider in
  kind://*) export CLUSTER=kind ;;
  *) export CLUSTER=other ;;
  esac
}

kube() {
  "$KUBECTL" "$@"
}

# nodes: the name of each node, one per line.
nodes() {
  kube get nodes -o 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}'
}

# node_exec NODE COMMAND...: runs COMMAND on a node.
node_exec() {
  local node=$1 prefix
  shift
  if [[ $CLUSTER == local ]]; then
    "$local_cluster" exec "$@"
    return
  fi
  [[ $CLUSTER == kind || -n ${NODE_EXEC:-} ]] ||
    die "the emulator needs a file on each node: set NODE_EXEC to a command that is given the node's name and a command to run there"
  read -ra prefix <<<"${NODE_EXEC:-${KIND_EXPERIMENTAL_PROVIDER:-docker} exec}"
  "${prefix[@]}" "$node" "$@"
}

# load_image REFERENCE ARCHIVE: puts an image where the cluster's nodes find it, and prints the name they find it by.
load_image() {
  local reference=$1 archive=$2 provider
  case $CLUSTER in
  local)
    "$local_cluster" load "$archive" >&2
    ;;
  kind)
    provider=$(kube get nodes -o 'jsonpath={.items[0].spec.providerID}')
    provider=${provider#kind://*/}
    "${KIND:-kind}" load image-archive "$archive" --name "${provider%%/*}" >&2
    ;;
  other)
    [[ -n ${IMAGE_REPOSITORY:-} ]] ||
      die "this is neither kind nor the local cluster: set IMAGE_REPOSITORY to a registry folder that you may push to and its nodes may pull from, such as contoso.azurecr.io/platform"
    reference=$IMAGE_REPOSITORY/${reference##*/}
    need skopeo
    progress "pushing $reference" skopeo --insecure-policy copy "docker-archive:$archive" "docker://$reference"
    ;;
  esac
  printf '%s\n' "$reference"
}

# image_in_cluster NAME: builds one of deploy/image.sh's images, loads it, and prints its name in the cluster.
image_in_cluster() {
  local image
  image=$("$root/deploy/image.sh" "$1")
  load_image "${image% *}" "${image#* }"
}

# kustomize_image NAME REFERENCE: an entry of kustomize's `images`, for a reference with a tag, a digest or neither.
kustomize_image() {
  printf '  - name: %s\n' "$1"
  case ${2##*/} in
  *@*) printf '    newName: %s\n    digest: %s\n' "${2%@*}" "${2##*@}" ;;
  *:*) printf '    newName: %s\n    newTag: "%s"\n' "${2%:*}" "${2##*:}" ;;
  *) printf '    newName: %s\n' "$2" ;;
  esac
}

# apply FLAG...: kubectl apply, which says on stderr what it may not do. What it says else is long and, of Secrets, untrue.
apply() {
  kube apply "$@" >/dev/null
}

# relative_to FOLDER PATH: kustomize takes no other base than a relative one.
relative_to() {
  realpath --relative-to="$(realpath "$1")" "$2"
}

# Waiting --------------------------------------------------------------------

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds; ends with a sentence that names WHAT if it does not in time.
wait_for() {
  local seconds=$1 what=$2
  shift 2
  await "$seconds" "$@" || die "gave up after $seconds s waiting until $what"
}

# rolled_out NAMESPACE DEPLOYMENT: waits until every replica is the new one and ready, or shows what is in the way.
rolled_out() {
  local namespace=$1 deployment=$2
  kube --namespace "$namespace" rollout status "deployment/$deployment" --timeout=120s >/dev/null || {
    kube --namespace "$namespace" get pods -o wide >&2
    kube --namespace "$namespace" get events --sort-by=.lastTimestamp | tail -n 15 >&2
    kube --namespace "$namespace" logs --prefix --tail=15 "deployment/$deployment" --all-containers >&2 || true
    die "deployment $namespace/$deployment did not become ready; its Pods, events and last log lines are above"
  }
  say "$deployment is up"
}

# Tools ----------------------------------------------------------------------

# need COMMAND [PACKAGE]: makes sure that COMMAND is there: installs its Debian package, or says what is missing.
need() {
  command -v "$1" >/dev/null || "$root/tests/cluster/packages.sh" "${2:-$1}"
}
