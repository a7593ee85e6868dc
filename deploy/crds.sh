#!/usr/bin/env bash
# crds.sh: applies the custom resource definitions to the cluster of KUBECONFIG (KUBECTL: which kubectl). Those of the
# generators are External Secrets Operator's own kinds: where its copies are there, they stay as they are, whichever
# came first.
set -euo pipefail
kustomize=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/kustomize
kubectl=${KUBECTL:-kubectl}
generators=(acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io)

# anothers LABELS: whether a CRD with these is there and somebody else's: without our label, or with that operator's,
# which stands beside ours where its copy was applied over ours.
anothers() {
  [[ -n $1 ]] || return 1
  [[ $1 != *'"app.kubernetes.io/part-of":"acr-pull-webhook"'* || $1 == *'"external-secrets.io/component"'* ]]
}

command -v "$kubectl" >/dev/null || {
  echo "crds.sh: kubectl is needed: install it, or set KUBECTL" >&2
  exit 1
}
"$kubectl" apply --kustomize "$kustomize/crds"
for crd in "${generators[@]}"; do
  labels=$("$kubectl" get crd "$crd" --ignore-not-found -o 'jsonpath=found {.metadata.labels}')
  if anothers "$labels"; then
    echo "$crd is there already and not ours: left as it is"
  else
    "$kubectl" apply --filename "$kustomize/generators/${crd%%.*}.yaml"
  fi
done
"$kubectl" wait --for=condition=Established --timeout=30s "${generators[@]/#/crd/}" crd/acrpullsecrets.acr-pull.dev
