# The tests of installing, upgrading and uninstalling on a real API server. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of test.sh

an_api_server_accepts_every_valid_row_of_values() {
  local words flags
  "$kubectl" create namespace "$name" >/dev/null
  "$kubectl" create namespace other >/dev/null
  while read -r words; do
    row "$words"
    render --no-hooks "${flags[@]}" | "$work/normalise" -kinds |
      "$kubectl" apply --server-side --force-conflicts --dry-run=server --filename - >"$work/applied" || { echo "with: $words" && return 1; }
  done < <(good_values)
  render --no-hooks "${provided[@]}" --set-string "extraCa.pem=$pem" --set-string "webhook.clientCa.pem=$pem" --set-string "certificates.provided.caBundle=$(cat "$work/cluster/pki/ca.crt")" |
    "$work/normalise" -kinds | "$kubectl" apply --server-side --dry-run=server --filename - >"$work/applied"
}

an_upgrade_keeps_published_fields_and_uninstall_leaves_only_crds() {
  local ca path=/mutate/0123456789abcdef0123456789abcdef01234567
  release install --create-namespace
  "$kubectl" wait --for=condition=Established crd/acrpullsecrets.acr-pull.dev crd/acraccesstokens.generators.external-secrets.io >/dev/null
  # As the webhook does it.
  ca=$(base64 -w 0 "$work/cluster/pki/ca.crt")
  "$kubectl" patch mutatingwebhookconfiguration "$name" --type=json \
    --patch '[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"'"$ca"'"},
      {"op":"add","path":"/webhooks/0/clientConfig/service/path","value":"'"$path"'"}]' >/dev/null
  release upgrade --set webhook.timeoutSeconds=20
  equal "20 $ca $path" "$("$kubectl" get mutatingwebhookconfiguration "$name" -o 'jsonpath={.webhooks[0].timeoutSeconds} {.webhooks[0].clientConfig.caBundle} {.webhooks[0].clientConfig.service.path}')"
  uninstall
  await 30 nothing_left || equal "" "$(everything)"
  "$kubectl" get crd acrpullsecrets.acr-pull.dev acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io >/dev/null
  "$kubectl" delete crd acrpullsecrets.acr-pull.dev acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io >/dev/null
}

an_upgrade_can_rename_the_registration() {
  local without_crds=(--set crds.acrPullSecrets=false --set crds.generators=false)
  release install --create-namespace "${without_crds[@]}"
  release upgrade "${without_crds[@]}" --set webhook.configurationName=zz-last
  equal mutatingwebhookconfiguration.admissionregistration.k8s.io/zz-last \
    "$("$kubectl" get mutatingwebhookconfigurations --output name)"
  uninstall
}

# As Argo CD compares: what the webhook publishes, and what the admissions enforcer of AKS requires, is no difference.
published_fields_are_not_a_difference_for_server_side_apply() {
  local registration=$work/registration.yaml entry enforced
  render --show-only templates/webhook.yaml >"$registration"
  "$kubectl" apply --server-side --field-manager argocd-controller --filename "$registration" >/dev/null
  for entry in 0 1; do
    "$kubectl" patch mutatingwebhookconfiguration "$name" --field-manager "$name" --type json --patch \
      '[{"op":"add","path":"/webhooks/'"$entry"'/clientConfig/service/path","value":"/mutate/x"},
        {"op":"add","path":"/webhooks/'"$entry"'/clientConfig/caBundle","value":"'"$(base64 -w 0 "$work/cluster/pki/ca.crt")"'"}]' >/dev/null
    enforced=$("$kubectl" get mutatingwebhookconfiguration "$name" \
      --output "jsonpath={.webhooks[$entry].namespaceSelector.matchExpressions[*].key}")
    contains "$enforced" "control-plane kubernetes.azure.com/managedby"
  done
  "$kubectl" diff --server-side --field-manager argocd-controller --filename "$registration"
  "$kubectl" delete --filename "$registration" >/dev/null
}

helm_takes_over_a_kustomize_deployment_and_reinstalls() {
  local crd
  "$kubectl" create --kustomize "$root/deploy/kustomize/crds" >/dev/null
  "$kubectl" apply --kustomize "$root/deploy/kustomize/base" >/dev/null
  # What the webhook publishes is left by the next apply, of another option.
  "$kubectl" patch mutatingwebhookconfiguration "$name" --type=json \
    --patch '[{"op":"add","path":"/webhooks/1/clientConfig/service/path","value":"/mutate/x"}]' >/dev/null
  "$kubectl" kustomize "$root/deploy/kustomize/base" | sed 's/timeoutSeconds: 10/timeoutSeconds: 11/' | "$kubectl" apply --filename - >/dev/null
  equal "11 /mutate/x" "$("$kubectl" get mutatingwebhookconfiguration "$name" -o 'jsonpath={.webhooks[1].timeoutSeconds} {.webhooks[1].clientConfig.service.path}')"
  release install --take-ownership --force-conflicts
  uninstall
  release install
  equal "Helm" "$("$kubectl" get crd acrpullsecrets.acr-pull.dev -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/managed-by}')"
  uninstall
  for crd in acrpullsecrets.acr-pull.dev acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io; do
    "$kubectl" delete crd "$crd" >/dev/null
  done
}

# operators: the kinds as External Secrets Operator has them.
operators() {
  sed 's/app.kubernetes.io\/part-of: acr-pull-webhook/external-secrets.io\/component: controller/' "$root"/deploy/kustomize/generators/acraccesstokens.yaml
}

the_crds_of_external_secrets_operator_are_left_unchanged() {
  local before after crd=acraccesstokens.generators.external-secrets.io
  operators | "$kubectl" create --filename - >/dev/null
  before=$("$kubectl" get crd "$crd" -o 'jsonpath={.metadata.resourceVersion} {.metadata.labels} {.spec}' | cut -d ' ' -f 2-)
  release install --create-namespace
  after=$("$kubectl" get crd "$crd" -o 'jsonpath={.metadata.resourceVersion} {.metadata.labels} {.spec}' | cut -d ' ' -f 2-)
  equal "$before" "$after"
  "$kubectl" get crd clustergenerators.generators.external-secrets.io >/dev/null
  # Then the operator's copy comes over ours.
  "$kubectl" label crd clustergenerators.generators.external-secrets.io external-secrets.io/component=controller >/dev/null
  release upgrade --set replicas=1
  "$kubectl" get crd "$crd" clustergenerators.generators.external-secrets.io >/dev/null
  uninstall
  "$kubectl" get crd "$crd" clustergenerators.generators.external-secrets.io >/dev/null
}

check an_api_server_accepts_every_valid_row_of_values
check an_upgrade_keeps_published_fields_and_uninstall_leaves_only_crds
check an_upgrade_can_rename_the_registration
check published_fields_are_not_a_difference_for_server_side_apply
check helm_takes_over_a_kustomize_deployment_and_reinstalls
check the_crds_of_external_secrets_operator_are_left_unchanged
