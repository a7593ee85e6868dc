#!/usr/bin/env bash
# Deploys the webhook to a cluster and waits until the API server reaches it. `make help` lists the variables.
# On a kind cluster it also deploys azure-emulator and leads the webhook and the nodes to it in place of Azure
# (EMULATOR=no: not; EMULATOR=yes: on any cluster).
set -euo pipefail
# shellcheck source=tests/e2e/emulator.sh
source "$(dirname "${BASH_SOURCE[0]}")/emulator.sh"
# shellcheck source=tests/e2e/overlay.sh
source "$root/tests/e2e/overlay.sh"

namespace=acr-pull-webhook
emulator_address='' emulator_ca='' identity_endpoint=''

main() {
  local reference folder
  use_cluster
  if emulator_wanted; then
    deploy_emulator
    "$root/tests/e2e/push-image.sh" team/app:1
  fi
  reference=${IMAGE:-}
  [[ -n $reference ]] || reference=$(image_in_cluster acr-pull-webhook)
  folder=$(state_dir)/webhook
  mkdir -p "$folder"
  [[ -z ${CERTS_DIR:-} ]] || certificates "$folder"
  write_overlay "$folder" "$reference"
  "$root/deploy/crds.sh" >"$folder/crds.log" || die "the custom resource definitions could not be applied"
  ! grep "does not belong to acr-pull-webhook" "$folder/crds.log" || true
  apply --kustomize "$folder"
  # What run.sh may remove has this label; what is deployed here may be for use.
  kube label namespace "$namespace" "${e2e_label%=*}-" >/dev/null
  rolled_out "$namespace" acr-pull-webhook
  # The last test of all: the API server finds the Service, trusts its certificate and gets an answer.
  await 60 refuses_a_missing_generator || die "the API server cannot reach the webhook: $last_answer"
  say "deployed: $reference"
}

emulator_wanted() {
  [[ ${EMULATOR:-auto} == yes || (${EMULATOR:-auto} == auto && $CLUSTER != other) ]]
}

# certificates FOLDER: copies the files of CERTS_DIR to FOLDER, because kustomize reads only files in its own folder.
certificates() {
  local file
  if [[ ! -s $CERTS_DIR/tls.crt || -s $CERTS_DIR/ca.key ]]; then
    need openssl
    "$root/certs/make-certs.sh" "$CERTS_DIR" "acr-pull-webhook.$namespace.svc" >/dev/null
  fi
  mkdir -p "$1/tls"
  for file in ca.crt tls.crt tls.key; do
    [[ -s $CERTS_DIR/$file ]] || die "CERTS_DIR=$CERTS_DIR has no $file"
    install -m 600 "$CERTS_DIR/$file" "$1/tls/$file"
  done
}

# refuses_a_missing_generator: whether the webhook, and nothing else, refuses a Pod whose generator does not exist.
refuses_a_missing_generator() {
  last_answer=$(
    kube create --dry-run=server --filename - 2>&1 <<'YAML'
apiVersion: v1
kind: Pod
metadata:
  generateName: acr-pull-webhook-check-
  namespace: default
  annotations:
    acr-pull.dev/access-token: no-such-generator
spec:
  containers:
    - name: check
      image: check
YAML
  ) || true
  [[ $last_answer == *'"pods.acr-pull.dev" denied the request'* ]]
}

main "$@"
