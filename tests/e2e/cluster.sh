# Which cluster the scripts of this folder use. Sourced, never run.
# shellcheck shell=bash disable=SC2154 # $root is that of deploy/lib.sh

local_cluster=$root/tests/kind/cluster.sh

# foreign_named: whether the user names a cluster. Otherwise the local cluster is used.
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
    # The kubectl of the same version, whose cache is removed with the cluster.
    KUBECTL=$("$local_cluster" kubectl)
    export KUBECACHEDIR=${KUBECONFIG%/*}/kubectl-cache
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

# kind_provider: prints what runs the nodes of a kind cluster: docker, podman or nerdctl.
kind_provider() {
  provider_id | cut -d / -f 3
}

kube() {
  "$KUBECTL" "$@"
}
