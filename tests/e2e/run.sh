#!/usr/bin/env bash
# run.sh [webhook|helm]: the end-to-end tests, on the cluster of KUBECONFIG: deploys the webhook by kustomize and tries it, then
# removes it and tries the chart; with a word only the one. Without KUBECONFIG it starts the local cluster, and stops it again
# unless it was running before or, for a person to look at, tests failed.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ ${1:-helm} =~ ^(helm|webhook)$ ]] || die "usage: run.sh [helm|webhook]"

stop_cluster() {
  local status=$?
  if ((status)) && [[ -z ${CI:-} ]]; then
    say "the cluster stays up for you to look at: export KUBECONFIG=$KUBECONFIG; '${ACR_PULL_CLUSTER_NAME:+ACR_PULL_CLUSTER_NAME=$ACR_PULL_CLUSTER_NAME }make cluster-down' removes it"
  else
    # Silently: nothing may follow the tests' own closing lines.
    "$local_cluster" down >/dev/null 2>&1 || status=$?
  fi
  exit "$status"
}

if [[ -z ${KUBECONFIG:-} ]]; then
  ((EUID == 0)) || die "the local cluster needs root: run this as root, or set KUBECONFIG to a cluster of yours"
  if ! "$local_cluster" status >/dev/null; then
    trap stop_cluster EXIT
    "$local_cluster" up >/dev/null
  fi
fi
use_cluster
cd "$root"

# On somebody's cluster the webhook is not removed unless asked for.
suites=${1:-webhook $([[ $CLUSTER == other ]] || echo helm)}

if [[ $suites == *webhook* ]]; then
  # One test searches the log for credentials: everything that can be said shall be said. Another one lets a team use the
  # machine's managed identities.
  ACR_PULL_WEBHOOK_LOG_LEVEL=trace ACR_PULL_WEBHOOK_MANAGED_IDENTITY_NAMESPACES=acr-pull-e2e-managed-identity "$root/tests/e2e/deploy.sh"
  tests=()
  for file in tests/e2e/tests/*.rs; do
    tests+=(--test "$(basename "$file" .rs)")
  done
  # Chosen from the whole workspace and not by --package e2e, which would compile the dependencies anew for fewer features.
  cargo test --locked --workspace "${tests[@]}"
fi
# Last, for a test before it searches logs for every credential that there was.
[[ $suites != *helm* ]] || tests/e2e/helm.sh
