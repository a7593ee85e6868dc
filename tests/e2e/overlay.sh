# The kustomization of a deployment: what differs between deployments. Sourced by deploy.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of deploy.sh

# write_overlay FOLDER REFERENCE: writes FOLDER/kustomization.yaml.
write_overlay() {
  local folder=$1 reference=$2 kustomize
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
components:
YAML
    [[ -z ${CERTS_DIR:-} ]] || echo "  - $kustomize/components/provided-certificates"
    [[ -z $emulator_address ]] || echo "  - $(relative_to "$folder" "$root/tests/e2e/manifests/emulated-azure")"
    echo "patches:"
    [[ -z ${CERTS_DIR:-} ]] || certificate_patches "$folder/tls"
    [[ -z ${ACR_PULL_WEBHOOK_TOKEN_AUDIENCES:-} ]] || audience_patch
    [[ -z $emulator_address ]] || address_patch
    [[ -z ${CERTS_DIR:-} ]] || cat <<YAML
secretGenerator:
  - {name: acr-pull-webhook-tls, namespace: $namespace, type: kubernetes.io/tls, files: [tls/tls.crt, tls/tls.key],
    options: {disableNameSuffixHash: true}}
YAML
    echo "configMapGenerator:"
    settings
    [[ -z $emulator_address ]] || printf '  - %s\n' "{name: extra-ca, namespace: $namespace, files: [ca.crt=extra-ca.crt]}"
  } >"$folder/kustomization.yaml"
  [[ -z $emulator_address ]] || cp "$emulator_ca" "$folder/extra-ca.crt"
}

# certificate_patches FOLDER: the API server trusts the authority, and a new certificate makes new Pods.
certificate_patches() {
  cat <<YAML
  - target:
      kind: MutatingWebhookConfiguration
    patch: |-
      - op: add
        path: /webhooks/0/clientConfig/caBundle
        value: &ca $(base64 <"$1/ca.crt" | tr -d '\n')
      - op: add
        path: /webhooks/1/clientConfig/caBundle
        value: *ca
  - target:
      kind: Deployment
    patch: |-
      - op: add
        path: /spec/template/metadata/annotations
        value:
          acr-pull.dev/certificate: $(content_hash "$1/tls.crt")
YAML
}

audience_patch() {
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
}

# The webhook finds Azure's hosts at the address of the emulator.
address_patch() {
  cat <<YAML
  - target:
      kind: Deployment
    patch: |-
      - op: add
        path: /spec/template/spec/hostAliases
        value: [{ip: $emulator_address, hostnames: [$(printf '%s, ' "${emulated_hosts[@]}" | sed 's/, $//')]}]
YAML
}

# The settings of the webhook: its variables of the environment that are set here, and those for the emulator.
settings() {
  local name
  printf '  - name: acr-pull-webhook-settings\n    namespace: %s\n    behavior: merge\n    literals:\n' "$namespace"
  echo "      - ACR_PULL_WEBHOOK_LOG_FORMAT=${ACR_PULL_WEBHOOK_LOG_FORMAT:-json}"
  [[ -z $emulator_address ]] || echo "      - ACR_PULL_WEBHOOK_EXTRA_CA_FILE=/etc/acr-pull-webhook/ca/ca.crt"
  [[ -z $identity_endpoint ]] ||
    printf '      - %s\n' "IDENTITY_ENDPOINT=$identity_endpoint" IDENTITY_HEADER=of-the-end-to-end-tests
  for name in AZURE_TENANT_ID $(compgen -e ACR_PULL_WEBHOOK_ | grep -vx ACR_PULL_WEBHOOK_LOG_FORMAT); do
    [[ -z ${!name:-} ]] || printf '      - "%s=%s"\n' "$name" "${!name}"
  done
}
