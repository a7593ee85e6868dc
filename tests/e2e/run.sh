#!/usr/bin/env bash
# run.sh [webhook|helm]: the end-to-end tests: deploys the webhook by kustomize and tries it, then removes it and tries the
# chart; with a word only the one. Without KUBECONFIG and ACR_PULL_CONTEXT it starts the local cluster, and removes it again
# unless it was running before or, for a person to look at, tests failed.
# run.sh check: only whether the cluster may be used, before long steps.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ ${1:-helm} =~ ^(helm|webhook|check)$ ]] || die "usage: run.sh [helm|webhook|check]"

stop_cluster() {
  local status=$?
  if ((status)) && [[ -z ${CI:-} ]]; then
    say "the cluster stays up for you to look at: export KUBECONFIG=${KUBECONFIG:-$("$local_cluster" kubeconfig)}"
    say "'make cluster-down ACR_PULL_CLUSTER_NAME=${ACR_PULL_CLUSTER_NAME:-local}' removes it"
  else
    # Silently: nothing may follow the tests' own closing lines.
    "$local_cluster" down >/dev/null 2>&1 || status=$?
  fi
  exit "$status"
}

# refuse_installed: ends if a webhook is installed that these tests did not deploy: they would replace and remove it.
refuse_installed() {
  local found
  found=$(kube get namespace,mutatingwebhookconfiguration --ignore-not-found -o name |
    grep -E '^(namespace|mutatingwebhookconfiguration[^/]*)/acr-pull-webhook$' || true)
  [[ -z $found || -n $(kube get namespace --selector "$e2e_label" -o name) ]] ||
    die "the webhook is installed on this cluster, and not by these tests, which would remove it. It was not changed.
Uninstall it first (docs/uninstall.md), or unset KUBECONFIG and ACR_PULL_CONTEXT to use a local cluster.
Found: ${found//$'\n'/, }"
}

if foreign_named; then
  use_cluster
  [[ $CLUSTER == local ]] || refuse_installed
fi
[[ ${1:-} != check ]] || exit 0
if ! foreign_named && ! "$local_cluster" status >/dev/null; then
  trap stop_cluster EXIT
  "$local_cluster" up >/dev/null
fi
use_cluster
cd "$root"

# On a foreign cluster, the webhook is removed only if the suite is named.
suites=${1:-webhook $([[ $CLUSTER == other ]] || echo helm)}

if [[ $suites == *webhook* ]]; then
  # One test searches the log for credentials: the log has every level. Another test lets a namespace use
  # the managed identities of the machine.
  ACR_PULL_WEBHOOK_LOG_LEVEL=trace ACR_PULL_WEBHOOK_MANAGED_IDENTITY_NAMESPACES=acr-pull-e2e-managed-identity \
    "$root/tests/e2e/deploy.sh"
  kube label namespace acr-pull-webhook "$e2e_label" >/dev/null
  tests=()
  for file in tests/e2e/tests/*.rs; do
    tests+=(--test "$(basename "$file" .rs)")
  done
  # Chosen from the whole workspace: --package e2e would compile the dependencies again for fewer features.
  cargo test --locked --workspace "${tests[@]}"
fi
# Last, for a test before it searches logs for every credential that there was.
[[ $suites != *helm* ]] || tests/e2e/helm.sh
