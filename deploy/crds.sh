#!/usr/bin/env bash
# crds.sh: applies the custom resource definitions to the cluster of KUBECONFIG (KUBECTL: which kubectl). Those of the
# generators are External Secrets Operator's own kinds: where its copies are there, they stay as they are, whichever came
# first.
set -euo pipefail
kustomize=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/kustomize
kubectl=${KUBECTL:-kubectl}
generators=(acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io)

# anothers CRD: whether it is there and somebody else's: without our label, or with that operator's, which stands beside
# ours where its copy was applied over ours.
anothers() {
  local labels
  labels=$("$kubectl" get crd "$1" --ignore-not-found -o 'jsonpath=found {.metadata.labels}')
  [[ -n $labels ]] || return 1
  [[ $labels != *'"app.kubernetes.io/part-of":"acr-pull-webhook"'* || $labels == *'"external-secrets.io/component"'* ]]
}

command -v "$kubectl" >/dev/null || {
  echo "crds.sh: kubectl is needed: install it, or set KUBECTL" >&2
  exit 1
}
"$kubectl" apply --kustomize "$kustomize/crds"
if anothers "${generators[0]}" || anothers "${generators[1]}"; then
  echo "External Secrets Operator's kinds are there already and not ours: left as they are"
else
  "$kubectl" apply --kustomize "$kustomize/generators"
fi
"$kubectl" wait --for=condition=Established --timeout=30s "${generators[@]/#/crd/}" crd/acrpullsecrets.acr-pull.dev
