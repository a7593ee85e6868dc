# Shell functions shared by the scripts that deploy and try the webhook on a cluster. Sourced, never run.
# shellcheck shell=bash
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../cluster/lib.sh"

# Without it a failure inside $(...) would go unnoticed.
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
local_cluster=$root/tests/kind/cluster.sh
# On the namespace of a webhook that the end-to-end tests deployed.
# shellcheck disable=SC2034 # for who sources this
e2e_label=acr-pull.dev/end-to-end-tests=true

# state_dir: prints the folder of what is generated for one deployment, and may be looked at afterwards. That of a local
# cluster is removed with the cluster.
state_dir() {
  local folder
  folder=$(cache_dir)/deploy/$(printf '%s' "${KUBECONFIG:?}" | sha256sum | cut -c 1-12)
  [[ $CLUSTER != local ]] || folder=${KUBECONFIG%/*}/deploy
  mkdir -p "$folder"
  chmod 700 "$folder"
  printf '%s\n' "$folder"
}

# The cluster ----------------------------------------------------------------

# foreign_named: whether the user names a cluster. Otherwise the local one is used.
foreign_named() {
  [[ -n ${KUBECONFIG:-}${ACR_PULL_CONTEXT:-} ]]
}

# use_cluster: exports KUBECONFIG, KUBECTL and CLUSTER, and prints which cluster that is:
#   local  the one of tests/kind/cluster.sh, which must be up, if neither variable names another
#   kind   a kind cluster of the user: the current context of KUBECONFIG
#   other  any other cluster, only if ACR_PULL_CONTEXT names its context
use_cluster() {
  # A script that another one of these started, for the same cluster.
  [[ -z ${CLUSTER_CHOSEN:-} || ${CLUSTER_CHOSEN:-} != "${KUBECONFIG:-}" ]] || return 0
  local context own server
  foreign_named || KUBECONFIG=$("$local_cluster" kubeconfig)
  own=$(cache_dir)/kind/acr-pull-
  export KUBECTL
  if [[ -z ${ACR_PULL_CONTEXT:-} && $KUBECONFIG == "$own"*/kubeconfig ]]; then
    ACR_PULL_CLUSTER_NAME=${KUBECONFIG#"$own"}
    export CLUSTER=local ACR_PULL_CLUSTER_NAME=${ACR_PULL_CLUSTER_NAME%/kubeconfig}
    # One that fits: no other of the right version need be there.
    KUBECTL=$("$local_cluster" kubectl)
  else
    KUBECTL=${KUBECTL:-kubectl}
    command -v "$KUBECTL" >/dev/null || die "kubectl is missing: install it, or set KUBECTL"
    choose_context
  fi
  export KUBECONFIG CLUSTER_CHOSEN=$KUBECONFIG
  context=$(kube config current-context)
  server=$(kube config view --minify -o 'jsonpath={.clusters[0].cluster.server}')
  say "cluster: ${CLUSTER/other/not kind}, context '$context' at $server"
}

# choose_context: refuses every cluster that is not kind's, unless it was named for this purpose.
choose_context() {
  local context=${ACR_PULL_CONTEXT:-} file
  if [[ -n $context ]]; then
    # A kubeconfig with this context alone: a later change of the user's kubeconfig has no effect on this run.
    file=$(cache_dir)/contexts/$(printf '%s' "$context" | sha256sum | cut -c 1-12)
    (umask 077 && mkdir -p "${file%/*}" &&
      kube config view --raw --flatten --minify --context "$context" >"$file.new") ||
      die "the kubeconfig has no context '$context', which ACR_PULL_CONTEXT names"
    mv "$file.new" "$file"
    export KUBECONFIG=$file CLUSTER=other
  else
    export KUBECONFIG CLUSTER=kind
    context=$(kube config current-context) || die "KUBECONFIG=$KUBECONFIG has no current context"
    [[ $context == kind-* ]] || refuse_context "$context"
  fi
  case $(provider_id) in
  kind://*) CLUSTER=kind ;;
  *) [[ -n ${ACR_PULL_CONTEXT:-} ]] || refuse_context "$context" ;;
  esac
}

refuse_context() {
  die "the context '$1' of KUBECONFIG=$KUBECONFIG is not a kind cluster. Nothing was changed there.
To use this cluster all the same, set ACR_PULL_CONTEXT='$1'. To use a local cluster, unset KUBECONFIG."
}

# provider_id: prints how kind knows the first node: kind://PROVIDER/CLUSTER/NODE.
provider_id() {
  kube get nodes --request-timeout=20s -o 'jsonpath={.items[*].spec.providerID}' | cut -d ' ' -f 1 ||
    die "the cluster of KUBECONFIG=$KUBECONFIG does not answer"
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
  local prefix
  case ${NODE_EXEC:+given}$CLUSTER in
  local) prefix=("$local_cluster" exec) ;;
  kind) prefix=("$(kind_provider)" exec --interactive) ;;
  given*) read -ra prefix <<<"$NODE_EXEC" ;;
  *) die "the emulator needs a file on each node: set NODE_EXEC to a command that is given a node's name and a command" ;;
  esac
  "${prefix[@]}" "$@"
}

# kind_provider: prints what runs the nodes of a kind cluster: docker, podman or nerdctl.
kind_provider() {
  provider_id | cut -d / -f 3
}

# load_image REFERENCE ARCHIVE: puts an image where the cluster's nodes find it, and prints the name they find it by.
load_image() {
  local reference=$1 archive=$2
  case $CLUSTER in
  local) "$local_cluster" load "$archive" >&2 ;;
  kind)
    KIND_EXPERIMENTAL_PROVIDER=$(kind_provider) "$("$local_cluster" program)" load image-archive "$archive" \
      --name "$(provider_id | cut -d / -f 4)" >&2
    ;;
  other)
    [[ -n ${IMAGE_REPOSITORY:-} ]] ||
      die "this is not a kind cluster: set IMAGE_REPOSITORY to a folder of a registry that you can push to and its nodes can
pull from, such as contoso.azurecr.io/platform"
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
