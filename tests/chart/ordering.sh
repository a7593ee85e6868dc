# The tests of docs/ordering.md: which webhooks an API server calls for a Pod, in which order, and what they find. The
# registration is that of the chart, with a webhook of ./webhooks in place of the program. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of test.sh

stamp=acr-pull.dev/access-token
policy_engine=kyverno-resource-mutating-webhook-cfg

start_webhooks() {
  go_build "$work/webhooks" "$here" ./webhooks
  mkdir "$work/called"
  setpriv --pdeathsig KILL -- "$work/webhooks" "$work/called" &
  webhooks=$!
  disown "$webhooks"
  await 10 test -s "$work/called/url" || die "the webhooks of the tests do not start; their message is above"
}

# client NAME CHANGE: the clientConfig of a webhook of ./webhooks.
client() {
  printf '{"url":"%s/%s/%s","caBundle":"%s"}' "$(<"$work/called/url")" "$1" "$2" "$(base64 -w 0 "$work/called/ca.crt")"
}

# register NAME CHANGE: a webhook of another owner, for all Pods of the namespaces of these tests.
register() {
  "$kubectl" apply --filename - >/dev/null <<YAML
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: $1}
webhooks:
  - name: other.example.com
    admissionReviewVersions: [v1]
    clientConfig: $(client "$1" "$2")
    namespaceSelector: {matchLabels: {tests: ordering}}
    reinvocationPolicy: Never
    rules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
    sideEffects: None
YAML
}

# register_ours CHANGE FLAG...: the registration of the chart.
register_ours() {
  local change=$1 index=0 entry
  shift
  render --show-only templates/webhook.yaml "$@" | "$kubectl" create --filename - >/dev/null
  ours=$(render --show-only templates/webhook.yaml "$@" | sed -n 's/^  name: //p')
  for entry in pods.acr-pull.dev namespaces.acr-pull.dev; do
    "$kubectl" patch mutatingwebhookconfiguration "$ours" --type json --patch \
      '[{"op":"replace","path":"/webhooks/'"$index"'/clientConfig","value":'"$(client "$entry" "$change")"'}]' >/dev/null
    index=$((index + 1))
  done
}

unregister() {
  "$kubectl" delete mutatingwebhookconfiguration "$ours" "$@" >/dev/null
}

# team NAME [LABEL]: a namespace.
team() {
  "$kubectl" create namespace "$1" >/dev/null
  "$kubectl" label namespace "$1" tests=ordering "${@:2}" >/dev/null
  await 10 "$kubectl" get serviceaccount default --namespace "$1" >/dev/null
}

# calls NAMESPACE FLAG...: the calls for a Pod, as one line of "WEBHOOK annotation=… image=… secrets=…".
calls() {
  : >"$work/called/calls"
  "$kubectl" run probe --image=docker.io/app --dry-run=server --namespace "$@" >/dev/null
  paste -s -d ';' "$work/called/calls"
}

# called PATTERN NAMESPACE FLAG...: a changed registration reaches the API server's cache after a moment.
called() {
  # shellcheck disable=SC2053 # a pattern
  [[ $(calls "${@:2}") == $1 ]]
}

# await_calls PATTERN NAMESPACE FLAG...: waits for the calls, and prints the difference if they do not come.
await_calls() {
  await 20 called "$@" || { printf 'expected calls: %s\n        actual: %s\n' "$1" "$(calls "${@:2}")" && return 1; }
}

an_annotation_of_a_later_webhook_is_not_seen() {
  team later
  register_ours ""
  register "$policy_engine" annotation/contoso
  # Both registrations are in effect.
  await_calls "pods.acr-pull.dev*;$policy_engine*" later --annotations "$stamp=other"
  equal "$policy_engine annotation= image=docker.io/app secrets=" "$(calls later)"
  unregister "$policy_engine"
}

an_annotation_is_seen_if_the_registration_sorts_last() {
  team earlier
  register_ours "" --set webhook.configurationName=zz-acr-pull-webhook
  register "$policy_engine" annotation/contoso
  await_calls "$policy_engine annotation= *;pods.acr-pull.dev annotation=contoso *" earlier
  unregister "$policy_engine"
}

a_later_annotation_does_not_replace_the_default_of_the_namespace() {
  team labelled "$stamp=contoso"
  register_ours ""
  register "$policy_engine" annotation/fabrikam
  # Called once, before the annotation, and not again.
  await_calls "namespaces.acr-pull.dev annotation= *;$policy_engine annotation= *" labelled
  equal 2 "$(calls labelled | tr ';' '\n' | wc -l)"
  # Also with `none`.
  register "$policy_engine" annotation/none
  await_calls "namespaces.acr-pull.dev annotation= *;$policy_engine annotation= *" labelled
  unregister "$policy_engine"
}

an_earlier_annotation_replaces_the_default_of_the_namespace() {
  team labelled-last "$stamp=contoso"
  register_ours "" --set webhook.configurationName=zz-acr-pull-webhook
  register "$policy_engine" annotation/none
  # `none` opts out, so the webhook is not called at all.
  await_calls "$policy_engine annotation= *" labelled-last
  register "$policy_engine" annotation/fabrikam
  await_calls "$policy_engine annotation= *;pods.acr-pull.dev annotation=fabrikam *" labelled-last
  unregister "$policy_engine"
}

an_annotation_of_a_mutating_admission_policy_is_seen() {
  team policy
  register_ours ""
  "$kubectl" apply --filename - >/dev/null <<YAML
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: zz-stamp}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policy}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
  mutations:
    - patchType: ApplyConfiguration
      applyConfiguration:
        expression: 'Object{metadata: Object.metadata{annotations: {"$stamp": "contoso"}}}'
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: zz-stamp}
spec: {policyName: zz-stamp}
YAML
  await_calls "pods.acr-pull.dev annotation=contoso *" policy
  "$kubectl" delete mutatingadmissionpolicy,mutatingadmissionpolicybinding zz-stamp >/dev/null
  unregister
}

an_image_that_is_rewritten_earlier_is_seen_in_one_call() {
  team images-last "$stamp=contoso"
  register_ours "" --set webhook.configurationName=zz-acr-pull-webhook
  register swap image/contoso.azurecr.io/app
  await_calls "swap *;namespaces.acr-pull.dev *image=contoso.azurecr.io/app *" images-last
  equal 2 "$(calls images-last | tr ';' '\n' | wc -l)"
  unregister swap
}

an_image_that_is_rewritten_later_is_seen_in_a_second_call() {
  team images "$stamp=contoso"
  register_ours ""
  register zz-swap image/contoso.azurecr.io/app
  await_calls "namespaces.acr-pull.dev *image=docker.io/app *;zz-swap *;namespaces.acr-pull.dev *image=contoso.azurecr.io/app *" images
  unregister zz-swap
}

a_webhook_that_reads_pull_secrets_finds_ours_only_if_it_sorts_later() {
  local reader=vault-secrets-webhook
  team readers
  register_ours secret/acr-pull-contoso
  register "$reader" ""
  await_calls "pods.acr-pull.dev *;$reader *secrets=acr-pull-contoso" readers --annotations "$stamp=contoso"
  unregister
  register_ours secret/acr-pull-contoso --set webhook.configurationName=zz-acr-pull-webhook
  await_calls "$reader *secrets=;pods.acr-pull.dev *" readers --annotations "$stamp=contoso"
  unregister "$reader"
}

start_webhooks
check an_annotation_of_a_later_webhook_is_not_seen
check an_annotation_is_seen_if_the_registration_sorts_last
check a_later_annotation_does_not_replace_the_default_of_the_namespace
check an_earlier_annotation_replaces_the_default_of_the_namespace
check an_annotation_of_a_mutating_admission_policy_is_seen
check an_image_that_is_rewritten_earlier_is_seen_in_one_call
check an_image_that_is_rewritten_later_is_seen_in_a_second_call
check a_webhook_that_reads_pull_secrets_finds_ours_only_if_it_sorts_later
kill "$webhooks"
