#!/usr/bin/env bash
# Deploys the webhook to a cluster and waits until the API server reaches it. `make help` tells the variables.
# On a kind cluster it also deploys azure-emulator and makes the webhook and the nodes take it for Azure
# (EMULATOR=no: not; EMULATOR=yes: on any cluster).
set -euo pipefail
# shellcheck source=tests/e2e/emulator.sh
source "$(dirname "${BASH_SOURCE[0]}")/emulator.sh"

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

# certificates FOLDER: copies what kustomize shall see of CERTS_DIR; it looks no further than its own folder.
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

# write_overlay FOLDER REFERENCE: all that differs from one deployment to the next.
write_overlay() {
  local folder=$1 reference=$2 name kustomize
  kustomize=$(relative_to "$folder" "$root/deploy/kustomize")
  {
    cat <<YAML
# Written by tests/e2e/deploy.sh.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - $kustomize/base
images:
$(kustomize_image acr-pull-webhook "$reference")
YAML
    if [[ -n ${CERTS_DIR:-} ]]; then
      cat <<YAML
components:
  - $kustomize/components/provided-certificates
secretGenerator:
  - name: acr-pull-webhook-tls
    namespace: $namespace
    type: kubernetes.io/tls
    files: [tls/tls.crt, tls/tls.key]
    options:
      disableNameSuffixHash: true
YAML
    fi
    patches "$folder"
    echo "configMapGenerator:"
    if [[ -n $emulator_address ]]; then
      echo "  - name: extra-ca"
      echo "    namespace: $namespace"
      echo "    files: [ca.crt=extra-ca.crt]"
    fi
    echo "  - name: acr-pull-webhook-settings"
    echo "    namespace: $namespace"
    echo "    behavior: merge"
    echo "    literals:"
    echo "      - ACR_PULL_WEBHOOK_LOG_FORMAT=${ACR_PULL_WEBHOOK_LOG_FORMAT:-json}"
    [[ -z $emulator_address ]] || echo "      - ACR_PULL_WEBHOOK_EXTRA_CA_FILE=/etc/acr-pull-webhook/ca/ca.crt"
    if [[ -n $identity_endpoint ]]; then
      echo "      - IDENTITY_ENDPOINT=$identity_endpoint"
      echo "      - IDENTITY_HEADER=of-the-end-to-end-tests"
    fi
    # Every option of the webhook that is set here is set there: README, "Configuration".
    for name in AZURE_TENANT_ID $(compgen -e ACR_PULL_WEBHOOK_ | grep -vx ACR_PULL_WEBHOOK_LOG_FORMAT); do
      [[ -z ${!name:-} ]] || printf '      - "%s=%s"\n' "$name" "${!name}"
    done
  } >"$folder/kustomization.yaml"
}

patches() {
  [[ -n ${CERTS_DIR:-}${ACR_PULL_WEBHOOK_TOKEN_AUDIENCES:-}$emulator_address ]] || return 0
  echo "patches:"
  if [[ -n ${CERTS_DIR:-} ]]; then
    cat <<YAML
  - target:
      kind: MutatingWebhookConfiguration
    patch: |-
      - op: add
        path: /webhooks/0/clientConfig/caBundle
        value: &ca $(base64 <"$1/tls/ca.crt" | tr -d '\n')
      - op: add
        path: /webhooks/1/clientConfig/caBundle
        value: *ca
  - target:
      kind: Deployment
    patch: |-
      # A new certificate is a new Pod.
      - op: add
        path: /spec/template/metadata/annotations
        value:
          acr-pull.dev/certificate: $(content_hash "$1/tls/tls.crt")
YAML
  fi
  if [[ -n ${ACR_PULL_WEBHOOK_TOKEN_AUDIENCES:-} ]]; then
    cat <<YAML
  - target:
      kind: ValidatingAdmissionPolicy
      name: acr-pull-webhook-tokens
    patch: |-
      - op: test
        path: /spec/variables/1/name
        value: audiences
      - op: replace
        path: /spec/variables/1/expression
        value: "['${ACR_PULL_WEBHOOK_TOKEN_AUDIENCES//,/\', \'}']"
YAML
  fi
  [[ -z $emulator_address ]] || emulator_patch "$1"
}

# emulator_patch FOLDER: Azure's names lead to the emulator, whose authority is trusted. The product knows nothing of it.
emulator_patch() {
  cp "$emulator_ca" "$1/extra-ca.crt"
  cat <<YAML
  - target:
      kind: Deployment
    patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: acr-pull-webhook
      spec:
        template:
          spec:
            hostAliases:
              - ip: $emulator_address
                hostnames: [$(printf '%s, ' "${emulated_hosts[@]}" | sed 's/, $//')]
            containers:
              - name: webhook
                volumeMounts:
                  - name: extra-ca
                    mountPath: /etc/acr-pull-webhook/ca
            volumes:
              - name: extra-ca
                configMap:
                  name: extra-ca
YAML
}

# refuses_a_missing_generator: whether a Pod that nobody could mean is refused by the webhook and by nothing else.
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
