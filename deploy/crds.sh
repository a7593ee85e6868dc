#!/usr/bin/env bash
# crds.sh: applies the custom resource definitions to the cluster of KUBECONFIG (KUBECTL: which kubectl). The CRDs of
# the generators also belong to External Secrets Operator. If the operator's copies are installed, before or after the
# webhook's, they are left unchanged.
set -euo pipefail
kustomize=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/kustomize
kubectl=${KUBECTL:-kubectl}
generators=(acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io)

# is_foreign LABELS: whether a CRD exists (LABELS is not empty) and does not belong to the webhook: it lacks the
# webhook's label, or it has the operator's label. It has both if the operator's copy was applied over the webhook's.
is_foreign() {
  [[ -n $1 ]] || return 1
  [[ $1 != *'"app.kubernetes.io/part-of":"acr-pull-webhook"'* || $1 == *'"external-secrets.io/component"'* ]]
}

command -v "$kubectl" >/dev/null || {
  echo "crds.sh: kubectl is missing: install it, or set KUBECTL" >&2
  exit 1
}
"$kubectl" apply --kustomize "$kustomize/crds"
for crd in "${generators[@]}"; do
  labels=$("$kubectl" get crd "$crd" --ignore-not-found -o 'jsonpath=found {.metadata.labels}')
  if is_foreign "$labels"; then
    echo "$crd already exists and does not belong to acr-pull-webhook: not changed"
  else
    "$kubectl" apply --filename "$kustomize/generators/${crd%%.*}.yaml"
  fi
done
"$kubectl" wait --for=condition=Established --timeout=30s "${generators[@]/#/crd/}" crd/acrpullsecrets.acr-pull.dev
