# The tests that need no API server: what the chart renders, and that deploy/kustomize is the same. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of test.sh

helm_lint_reports_nothing() {
  "$helm" lint --strict "$chart"
  "$helm" lint --strict "$chart" "${provided[@]}"
}

the_version_of_the_chart_is_that_of_the_program() {
  local version
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  equal "$version $version" "$(sed -n 's/^\(version\|appVersion\): //p' "$chart/Chart.yaml" | paste -s -d ' ')"
}

every_valid_row_of_values_renders() {
  local words flags
  while read -r words; do
    row "$words"
    render "${flags[@]}" >"$work/rendered" || { echo "with: $words" && return 1; }
  done < <(good_values)
  render --values "$root/certs/cert-manager/values.yaml" >"$work/rendered"
  render --values "$chart/values-openshift.yaml" >"$work/rendered"
  render "${provided[@]}" --set-string "extraCa.pem=$pem" --set-string "webhook.clientCa.pem=$pem" >"$work/rendered"
  contains "$(cat "$work/rendered")" "ACR_PULL_WEBHOOK_CLIENT_CA_FILE: \"/etc/acr-pull-webhook/client-ca/ca.crt\""
}

every_invalid_value_is_refused_with_its_path() {
  local value part
  while read -r value part; do
    contains "$(refusal render --set "$value")" "$part" || { echo "with: $value" && return 1; }
  done < <(bad_values)
}

a_large_number_is_not_printed_as_a_float() {
  contains "$(render --values <(echo 'pullSecrets: {renewalRate: 2000000}'))" 'ACR_PULL_WEBHOOK_RENEWAL_RATE: "2000000"'
  contains "$(render --set webhook.shutdownDelay=0)" 'ACR_PULL_WEBHOOK_SHUTDOWN_DELAY: "0"'
}

egress_is_limited_to_the_given_destinations() {
  local rule
  rule=$(render --set networkPolicy.enabled=true --set 'networkPolicy.egressTo[0].ipBlock.cidr=203.0.113.0/24' \
    --show-only templates/network-policy.yaml | grep -A3 'port: 6443')
  contains "$(tr -s ' \n' ' ' <<<"$rule")" 'port: 6443 to: - ipBlock: cidr: 203.0.113.0/24'
}

an_excluded_namespace_is_in_registration_policies_and_options() {
  local rendered list='["kube-system","acr-pull-webhook","a","b"]'
  rendered=$(render --set 'webhook.excludedNamespaces={a,b}')
  # The anchor of the registration's two entries, both policies, and the program.
  equal 1 "$(grep -cF "values: $list" <<<"$rendered")"
  equal 2 "$(grep -cF "'!(request.namespace in $list)'" <<<"$rendered")"
  contains "$rendered" 'ACR_PULL_WEBHOOK_EXCLUDED_NAMESPACES: "a,b"'
  rendered=$(render --set 'namespaces={c,d}')
  equal 2 "$(grep -cF '(request.namespace in ["kube-system","acr-pull-webhook"]) && request.namespace in ["c","d"]' <<<"$rendered")"
}

# The order of the webhooks is the order of these names.
the_name_of_the_registration_reaches_rbac_and_options() {
  local rendered
  rendered=$(render --set webhook.configurationName=zz-last)
  equal 3 "$(grep -c zz-last <<<"$rendered")"
  equal "  name: zz-last" "$(grep -A3 '^kind: MutatingWebhookConfiguration' <<<"$rendered" | grep name:)"
  contains "$rendered" 'resourceNames: [zz-last]'
  contains "$rendered" 'ACR_PULL_WEBHOOK_WEBHOOK_CONFIGURATION: "zz-last"'
}

common_labels_and_annotations_are_on_every_object() {
  local rendered common=(--set commonLabels.team=platform --set commonAnnotations.owner=platform --set certificates.mode=cert-manager)
  rendered=$(render "${common[@]}" --set networkPolicy.enabled=true --set serviceMonitor.enabled=true --set crds.generators=true)
  equal "" "$(without "$rendered" '"team":"platform"')"
  equal "" "$(without "$rendered" '"owner":"platform"')"
  # The Pods of the Deployment, and the Secrets of the two Certificates.
  equal "2 2" "$(grep -A60 '^kind: Deployment' <<<"$rendered" | grep -cE '^ +team: platform') $(grep -c secretTemplate: <<<"$rendered")"
  equal "" "$(render | grep -E 'secretTemplate|^  annotations: *(\{\}|null)' || true)"
}

# without MANIFESTS TEXT: the objects that do not contain the text.
without() {
  sed -e 's/cert-manager.io\/v1/example.com\/v1/; s/monitoring.coreos.com/example.com/' <<<"$1" |
    "$work/normalise" -kinds | grep -v -e '^---$' -e "$2" || true
}

# Selectors, RBAC and Helm's ownership depend on them.
common_labels_do_not_replace_labels_of_the_chart() {
  diff <(render) <(render --set 'commonLabels.app\.kubernetes\.io/name=x')
}

# Otherwise the Service would send reviews to it.
the_pod_of_helm_test_is_not_selected_by_the_service() {
  local labels
  labels=$(render --show-only templates/tests/check.yaml | grep 'app.kubernetes.io/name:' | sort -u)
  equal "    app.kubernetes.io/name: $name-test" "$labels"
}

# A Deployment Safeguard of AKS.
two_services_do_not_have_the_same_selector() {
  local selectors
  selectors=$(render --set serviceMonitor.enabled=true | "$work/normalise" -kinds | grep '"kind":"Service"' |
    grep -o '"selector":{[^}]*}')
  equal "2 2" "$(wc -l <<<"$selectors") $(sort -u <<<"$selectors" | wc -l)"
}

one_replica_has_no_disruption_budget() {
  contains "$(render)" 'kind: PodDisruptionBudget'
  equal "" "$(render --set replicas=1 | grep PodDisruptionBudget || true)"
}

# With a surge, two Pods would need the same port of a node.
a_rollout_on_the_host_network_ends_an_old_pod_first() {
  local rendered
  rendered=$(render --set hostNetwork=true)
  contains "$(tr -s ' \n' ' ' <<<"$rendered")" 'maxSurge: 0 maxUnavailable: 1'
  contains "$rendered" 'dnsPolicy: ClusterFirstWithHostNet'
  contains "$(tr -s ' \n' ' ' <<<"$(render)")" 'maxSurge: 1 maxUnavailable: 0'
}

pods_run_on_linux_nodes() {
  local rendered
  rendered=$(render --set nodeSelector.pool=system | grep -A2 nodeSelector: | tr -s ' \n' ' ')
  # The Deployment and the Pod of helm test.
  equal " nodeSelector: kubernetes.io/os: linux pool: system -- nodeSelector: kubernetes.io/os: linux pool: system " "$rendered"
}

# Also a failed test leaves nobody the right to create Pods. What it said stays to be read.
the_permissions_of_helm_test_are_deleted_with_it() {
  equal 3 "$(render --show-only templates/tests/check.yaml | grep -c 'hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed$')"
}

a_ca_is_either_text_or_a_config_map() {
  contains "$(refusal render --set-string "extraCa.pem=$pem" --set extraCa.configMap=ours)" /extraCa/configMap
}

# There the webhook would write its secret path in place of the certificate.
a_provided_certificate_has_a_secret_of_its_own() {
  contains "$(refusal render "${provided[@]}" --set certificates.provided.secretName="$name-certificates")" certificates.provided.secretName
}

# Each variable that the program reads is one that the chart can set.
every_option_of_the_program_has_a_value() {
  local variable missing=0
  while read -r variable; do
    case $variable in
    # Flags, which the chart always gives.
    ACR_PULL_WEBHOOK_LISTEN_ADDR | ACR_PULL_WEBHOOK_ADMIN_ADDR | ACR_PULL_WEBHOOK_TLS_CERT | ACR_PULL_WEBHOOK_TLS_KEY) continue ;;
    esac
    grep -qE "\"${variable#ACR_PULL_WEBHOOK_}\"" "$chart/templates/_helpers.tpl" || { echo "no value sets $variable" && missing=1; }
  done < <(grep -rhoE 'env = "[A-Z_]+"' "$root/src" | grep -oE '[A-Z_]{2,}' | sort -u)
  ((missing == 0))
}

kustomized() {
  local folder
  for folder; do
    printf -- '---\n'
    "$kubectl" kustomize "$folder"
  done | "$work/normalise"
}

# same_as COMPONENTS VALUE...: whether the chart with these values is the base with these components.
same_as() {
  local overlay=$work/overlay component=''
  mkdir -p "$overlay"
  {
    printf 'resources: [%s]\ncomponents:\n' "$(realpath --relative-to="$overlay" "$root/deploy/kustomize/base")"
    for component in $1; do
      printf '  - %s\n' "$(realpath --relative-to="$overlay" "$root/deploy/kustomize/components/$component")"
    done
    [[ -n $component ]] || echo "  []"
  } >"$overlay/kustomization.yaml"
  shift
  diff <(kustomized "$overlay" "$root/deploy/kustomize/crds" "$root/deploy/kustomize/generators") \
    <(render --no-hooks "$@" | "$work/normalise")
}

the_default_equals_the_base_of_kustomize() {
  same_as ""
}

each_component_of_kustomize_equals_a_value() {
  same_as cert-manager --set certificates.mode=cert-manager
  same_as network-policy --set networkPolicy.enabled=true
  same_as last-in-order --set webhook.configurationName=zz-acr-pull-webhook
  same_as host-network --set hostNetwork=true,listen.port=10270,admin.port=10271
  same_as openshift --values "$chart/values-openshift.yaml"
  # There the authority is for an overlay to add.
  same_as provided-certificates "${provided[@]}" --set certificates.provided.secretName=acr-pull-webhook-tls >"$work/diff" || true
  equal 2 "$(grep -c '^[<>]' "$work/diff")"
  equal 2 "$(grep -c '^> *"caBundle"' "$work/diff")"
}

check helm_lint_reports_nothing
check the_version_of_the_chart_is_that_of_the_program
check every_valid_row_of_values_renders
check every_invalid_value_is_refused_with_its_path
check a_large_number_is_not_printed_as_a_float
check egress_is_limited_to_the_given_destinations
check an_excluded_namespace_is_in_registration_policies_and_options
check the_name_of_the_registration_reaches_rbac_and_options
check common_labels_and_annotations_are_on_every_object
check common_labels_do_not_replace_labels_of_the_chart
check the_pod_of_helm_test_is_not_selected_by_the_service
check two_services_do_not_have_the_same_selector
check one_replica_has_no_disruption_budget
check a_rollout_on_the_host_network_ends_an_old_pod_first
check pods_run_on_linux_nodes
check the_permissions_of_helm_test_are_deleted_with_it
check a_ca_is_either_text_or_a_config_map
check a_provided_certificate_has_a_secret_of_its_own
check every_option_of_the_program_has_a_value
check the_default_equals_the_base_of_kustomize
check each_component_of_kustomize_equals_a_value
