#!/usr/bin/env bash
# test.sh [lint]: the tests of deploy/chart. With `lint` those that need no API server: what it renders, and that it is what
# deploy/kustomize is. Without, also: a real API server takes it, and Helm installs, upgrades and uninstalls it there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
source "$here/../cluster/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../cluster/check.sh
source "$here/../cluster/check.sh"

root=$(cd "$here/../.." && pwd)
chart=$root/deploy/chart
name=acr-pull-webhook
[[ $# == 0 || $* == lint ]] || die "usage: test.sh [lint]"

work=$(mktemp -d)
control_plane=''
trap finish EXIT
export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm
helm=$("$here/build.sh")
go_build "$work/normalise" "$here" ./normalise
kubectl=$(command -v kubectl || true)
[[ $* == lint && -n $kubectl ]] || kubectl=$("$here/../cluster/build.sh")/kubectl

finish() {
  if [[ -n $control_plane ]]; then
    # Its standard input.
    exec {hold}>&-
    wait "$control_plane" || true
  fi
  rm -rf "$work"
}

render() {
  "$helm" template "$name" "$chart" --namespace "$name" "$@"
}

# One certificate's text; nobody looks inside.
pem=$'-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----'
provided=(--set certificates.mode=provided --set certificates.provided.secretName=mine --set-string "certificates.provided.caBundle=$pem")

# The words of a row are given to helm's --set.
good_values() {
  cat <<'ROWS'
replicas=2
certificates.mode=cert-manager
certificates.mode=cert-manager certificates.certManager.issuerRef.name=mine certificates.certManager.issuerRef.kind=ClusterIssuer
certificates.selfManaged.secretName=other certificates.selfManaged.lifetime=720h
fullnameOverride=other commonLabels.team=platform
policies.enabled=false
crds.acrPullSecrets=false
crds.generators=true crds.keep=false
crds.generators=false
podDisruptionBudget.enabled=false replicas=1
networkPolicy.enabled=true azure.managedIdentityNamespaces={team-a} networkPolicy.adminFrom[0].namespaceSelector.matchLabels.a=b
networkPolicy.enabled=true networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.0/28
networkPolicy.enabled=true networkPolicy.extraEgress[0].ports[0].port=3128
serviceMonitor.enabled=true serviceMonitor.labels.release=prometheus
webhook.failurePolicy=Ignore webhook.timeoutSeconds=30 webhook.excludedNamespaces={a,b} webhook.onUpstreamFailure=deny
webhook.maxConnections=10 webhook.shutdownDelay=0 pullSecrets.issueConcurrency=8
pullSecrets.unusedGrace=1h30m pullSecrets.unusedNotice=3m pullSecrets.renewalConcurrency=1 pullSecrets.renewalRate=1
leaderElection.leaseDuration=30s leaderElection.renewDeadline=20s leaderElection.retryPeriod=500ms leaderElection.namespace=default
log.level=debug log.format=text
azure.tenantId=contoso.onmicrosoft.com azure.registrySuffixes={azurecr.io,azurecr.us} azure.tokenAudiences={api://AzureADTokenExchange,api://other}
azure.authorityHosts={AzureStackCloud=login.example.com} azure.acrAudiences={ChinaCloud=https://example.cn} azure.managedIdentityNamespaces={*}
extraCa.configMap=ours extraCa.key=roots.pem webhook.clientCa.configMap=theirs webhook.clientCa.names[0]=apiserver
proxy.https=http://proxy.example.com:3128 proxy.noProxy={.azurecr.us,10.0.0.0/8}
image.repository=contoso.azurecr.io/platform/acr-pull-webhook image.tag=v1 image.pullPolicy=Always imagePullSecrets[0].name=platform
image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
serviceAccount.annotations.azure\.workload\.identity/client-id=x podLabels.team=platform podAnnotations.a=b
nodeSelector.a=b tolerations[0].operator=Exists hostAliases[0].ip=10.0.0.1 hostAliases[0].hostnames={a} extraEnv[0].name=A extraEnv[0].value=b
affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key=metadata.name affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].operator=In affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values={a}
topologySpreadConstraints[0].maxSkew=2 topologySpreadConstraints[0].topologyKey=zone topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule priorityClassName=
namespaces={default,kube-public} certificates.selfManaged.lifetime=1h
listen.address=[::] listen.port=9443 admin.port=9090 test.namespace=other
ROWS
}

# What is wrong, and a part of what Helm says of it: the path, so that it can be found.
bad_values() {
  cat <<'ROWS'
replicas=two /replicas
certificates.mode=none /certificates/mode
certificates.mode=provided /certificates/provided/caBundle
networkPolicy.webhookFrom=x /networkPolicy/webhookFrom
networkPolicy.egressTo=x /networkPolicy/egressTo
webhook.clientCa.names[0]=apiserver webhook.clientCa.names
certificates.selfManaged.lifetime=90d /certificates/selfManaged/lifetime
azure.tenantID=x 'tenantID' not allowed
azure.registrySuffixes=azurecr.io /azure/registrySuffixes
azure.tokenAudiences=null missing property 'tokenAudiences'
azure.tokenAudiences={a'b} /azure/tokenAudiences/0
azure.managedIdentityNamespaces={Team} /azure/managedIdentityNamespaces/0
namespaces={Team} /namespaces/0
webhook.timeoutSeconds=60 /webhook/timeoutSeconds
webhook.excludedNamespaces={a'b} /webhook/excludedNamespaces/0
webhook.failurePolicy=fail /webhook/failurePolicy
webhook.onUpstreamFailure=refuse /webhook/onUpstreamFailure
webhook.maxConnections=0 /webhook/maxConnections
pullSecrets.unusedGrace=soon /pullSecrets/unusedGrace
log.format=xml /log/format
crds.generators=maybe /crds/generators
extraCa.pem=x /extraCa/pem
image.digest=abc /image/digest
listen.port=70000 /listen/port
proxy.https=proxy:3128 /proxy/https
policies.enabled=yes /policies/enabled
ROWS
}

# row WORDS: as flags of helm, in the array $flags.
row() {
  local word
  flags=()
  for word in $1; do
    flags+=(--set "$word")
  done
}

helm_finds_nothing_to_say() {
  "$helm" lint --strict "$chart"
  "$helm" lint --strict "$chart" "${provided[@]}"
}

its_version_is_the_programs() {
  local version
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  equal "$version $version" "$(sed -n 's/^\(version\|appVersion\): //p' "$chart/Chart.yaml" | paste -s -d ' ')"
}

every_good_value_renders() {
  local words flags
  while read -r words; do
    row "$words"
    render "${flags[@]}" >"$work/rendered" || { echo "with: $words" && return 1; }
  done < <(good_values)
  render --values "$root/certs/cert-manager/values.yaml" >"$work/rendered"
  render "${provided[@]}" --set-string "extraCa.pem=$pem" --set-string "webhook.clientCa.pem=$pem" >"$work/rendered"
  contains "$(cat "$work/rendered")" "ACR_PULL_WEBHOOK_CLIENT_CA_FILE: \"/etc/acr-pull-webhook/client-ca/ca.crt\""
}

every_bad_value_is_refused_by_its_path() {
  local value part
  while read -r value part; do
    contains "$(refusal render --set "$value")" "$part" || { echo "with: $value" && return 1; }
  done < <(bad_values)
}

a_large_number_stays_one() {
  contains "$(render --values <(echo 'pullSecrets: {renewalRate: 2000000}'))" 'ACR_PULL_WEBHOOK_RENEWAL_RATE: "2000000"'
  contains "$(render --set webhook.shutdownDelay=0)" 'ACR_PULL_WEBHOOK_SHUTDOWN_DELAY: "0"'
}

egress_has_the_destinations_that_are_named() {
  local rule
  rule=$(render --set networkPolicy.enabled=true --set 'networkPolicy.egressTo[0].ipBlock.cidr=203.0.113.0/24' \
    --show-only templates/network-policy.yaml | grep -A3 'port: 6443')
  contains "$(tr -s ' \n' ' ' <<<"$rule")" 'port: 6443 to: - ipBlock: cidr: 203.0.113.0/24'
}

what_is_excluded_is_excluded_everywhere() {
  local rendered list='["kube-system","acr-pull-webhook","a","b"]'
  rendered=$(render --set 'webhook.excludedNamespaces={a,b}')
  # The anchor of the registration's two entries, both policies, and the program.
  equal 1 "$(grep -cF "values: $list" <<<"$rendered")"
  equal 2 "$(grep -cF "'!(request.namespace in $list)'" <<<"$rendered")"
  contains "$rendered" 'ACR_PULL_WEBHOOK_EXCLUDED_NAMESPACES: "a,b"'
  rendered=$(render --set 'namespaces={c,d}')
  equal 2 "$(grep -cF '(request.namespace in ["kube-system","acr-pull-webhook"]) && request.namespace in ["c","d"]' <<<"$rendered")"
}

# Also a failed test leaves nobody the right to create Pods. What it said stays to be read.
the_rights_of_the_test_go_with_it() {
  equal 3 "$(render --show-only templates/tests/check.yaml | grep -c 'hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed$')"
}

a_ca_is_text_or_a_config_map_not_both() {
  contains "$(refusal render --set-string "extraCa.pem=$pem" --set extraCa.configMap=ours)" /extraCa/configMap
}

# There the webhook would write its secret path in place of the certificate.
a_provided_certificate_is_not_in_the_webhooks_own_secret() {
  contains "$(refusal render "${provided[@]}" --set certificates.provided.secretName=$name-certificates)" certificates.provided.secretName
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

the_default_is_the_base_of_kustomize() {
  same_as ""
}

each_component_is_a_value() {
  same_as cert-manager --set certificates.mode=cert-manager
  same_as network-policy --set networkPolicy.enabled=true
  # There the authority is for an overlay to add.
  same_as provided-certificates "${provided[@]}" --set certificates.provided.secretName=acr-pull-webhook-tls >"$work/diff" || true
  equal 2 "$(grep -c '^[<>]' "$work/diff")"
  equal 2 "$(grep -c '^> *"caBundle"' "$work/diff")"
}

# With an API server --------------------------------------------------------

start_control_plane() {
  local line
  mkfifo "$work/hold"
  "${kubectl%/*}/control-plane" --dir "$work/cluster" <"$work/hold" >"$work/ready" &
  control_plane=$!
  exec {hold}>"$work/hold"
  await 60 test -s "$work/ready" || die "no control plane; what it said is above"
  read -r line <"$work/ready"
  export KUBECONFIG=${line#ready kubeconfig=}
  kubectl=$work/cluster/bin/kubectl
}

an_api_server_takes_what_is_rendered() {
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

# Nobody runs the Pods there, so nothing is waited for.
release() {
  local verb=$1
  shift
  "$helm" "$verb" "$name" "$chart" --namespace "$name" "$@" >"$work/release"
}

everything() {
  "$kubectl" get mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings --output name |
    grep "$name" || true
  "$kubectl" get all,configmaps,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,leases --all-namespaces --output name |
    grep "$name" || true
}

# Pods go a moment after their Deployment.
nothing_left() {
  [[ -z $(everything) ]]
}

an_installation_can_be_upgraded_and_leaves_nothing_but_kinds() {
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
  "$helm" uninstall "$name" --namespace "$name" >"$work/release"
  await 30 nothing_left || equal "" "$(everything)"
  "$kubectl" get crd acrpullsecrets.acr-pull.dev acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io >/dev/null
  "$kubectl" delete crd acrpullsecrets.acr-pull.dev acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io >/dev/null
}

a_deployment_by_kustomize_is_taken_over_and_what_was_uninstalled_comes_back() {
  local crd
  "$kubectl" create --kustomize "$root/deploy/kustomize/crds" >/dev/null
  "$kubectl" apply --kustomize "$root/deploy/kustomize/base" >/dev/null
  # What the webhook publishes is left by the next apply, of another option.
  "$kubectl" patch mutatingwebhookconfiguration "$name" --type=json \
    --patch '[{"op":"add","path":"/webhooks/1/clientConfig/service/path","value":"/mutate/x"}]' >/dev/null
  "$kubectl" kustomize "$root/deploy/kustomize/base" | sed 's/timeoutSeconds: 10/timeoutSeconds: 11/' | "$kubectl" apply --filename - >/dev/null
  equal "11 /mutate/x" "$("$kubectl" get mutatingwebhookconfiguration "$name" -o 'jsonpath={.webhooks[1].timeoutSeconds} {.webhooks[1].clientConfig.service.path}')"
  release install --take-ownership --force-conflicts
  "$helm" uninstall "$name" --namespace "$name" >"$work/release"
  release install
  equal "Helm" "$("$kubectl" get crd acrpullsecrets.acr-pull.dev -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/managed-by}')"
  "$helm" uninstall "$name" --namespace "$name" >"$work/release"
  for crd in acrpullsecrets.acr-pull.dev acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io; do
    "$kubectl" delete crd "$crd" >/dev/null
  done
}

# operators: the kinds as External Secrets Operator has them.
operators() {
  sed 's/app.kubernetes.io\/part-of: acr-pull-webhook/external-secrets.io\/component: controller/' "$root"/deploy/kustomize/generators/acraccesstokens.yaml
}

the_operators_kinds_stay_as_they_are_in_either_order() {
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
  "$helm" uninstall "$name" --namespace "$name" >"$work/release"
  "$kubectl" get crd "$crd" clustergenerators.generators.external-secrets.io >/dev/null
}

check helm_finds_nothing_to_say
check its_version_is_the_programs
check every_good_value_renders
check every_bad_value_is_refused_by_its_path
check a_large_number_stays_one
check egress_has_the_destinations_that_are_named
check what_is_excluded_is_excluded_everywhere
check the_rights_of_the_test_go_with_it
check a_ca_is_text_or_a_config_map_not_both
check a_provided_certificate_is_not_in_the_webhooks_own_secret
check every_option_of_the_program_has_a_value
check the_default_is_the_base_of_kustomize
check each_component_is_a_value
if [[ $* != lint ]]; then
  start_control_plane
  check an_api_server_takes_what_is_rendered
  check an_installation_can_be_upgraded_and_leaves_nothing_but_kinds
  check a_deployment_by_kustomize_is_taken_over_and_what_was_uninstalled_comes_back
  check the_operators_kinds_stay_as_they_are_in_either_order
fi
summary
