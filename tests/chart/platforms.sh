# The tests of platforms: API servers and clusters that are stricter than the default. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of test.sh

# pods NAMESPACE: how many Pods of the webhook exist.
pods() {
  "$kubectl" get pods --namespace "$1" --selector app.kubernetes.io/name="$name" --output name | wc -l
}

pods_are() {
  [[ $(pods "$1") == "$2" ]]
}

# replica_sets_report TEXT: why the controller could not create a Pod.
replica_sets_report() {
  [[ $("$kubectl" get replicasets --namespace "$name" --output 'jsonpath={.items[*].status.conditions[*].message}') == *"$1"* ]]
}

a_limited_priority_class_is_allowed_by_the_quota() {
  release install --create-namespace
  await 30 pods_are "$name" 2
  uninstall
  await 30 pods_are "$name" 0
  # The control plane really limits the class.
  release install --set resourceQuota.enabled=false
  await 30 replica_sets_report 'insufficient quota to match these scopes'
  equal 0 "$(pods "$name")"
  release upgrade --set resourceQuota.enabled=true
  await 60 pods_are "$name" 2
  uninstall
}

a_limited_priority_class_is_allowed_by_the_quota_of_kustomize() {
  "$kubectl" delete namespace "$name" --ignore-not-found >/dev/null
  "$kubectl" apply --kustomize "$root/deploy/kustomize/base" >/dev/null
  await 30 pods_are "$name" 2
  "$kubectl" delete --kustomize "$root/deploy/kustomize/base" >/dev/null
}

# As the SecurityContextConstraints restricted-v2 of OpenShift, for a namespace with the range 1000700000/10000.
restricted_v2() {
  cat <<'YAML'
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: restricted-v2}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: ["*"], resources: [pods], operations: [CREATE]}]
  variables:
    - name: users
      expression: >-
        [object.spec.?securityContext.?runAsUser, object.spec.?securityContext.?fsGroup] +
        object.spec.containers.map(container, container.?securityContext.?runAsUser)
  validations:
    - expression: variables.users.all(user, user.optMap(id, id >= 1000700000 && id < 1000710000).orValue(true))
      message: unable to validate against any security context constraint
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: restricted-v2}
spec: {policyName: restricted-v2, validationActions: [Deny]}
YAML
}

pods_are_refused_by_restricted_v2() {
  [[ $(refusal "$kubectl" run probe --image=none --dry-run=server \
    --overrides '{"spec":{"securityContext":{"runAsUser":1}}}') == *'security context constraint'* ]]
}

the_values_for_openshift_leave_users_to_the_platform() {
  restricted_v2 | "$kubectl" apply --filename - >/dev/null
  await 30 pods_are_refused_by_restricted_v2
  release install --create-namespace
  await 30 replica_sets_report 'unable to validate against any security context constraint'
  equal 0 "$(pods "$name")"
  release upgrade --values "$chart/values-openshift.yaml"
  # The first Pod of the rollout. It is never ready, because the control plane has no node.
  await 60 pods_are "$name" 1
  uninstall
  restricted_v2 | "$kubectl" delete --filename - >/dev/null
}

# can USER VERB RESOURCE: in the namespace `default`.
can() {
  [[ $("$kubectl" auth can-i "$2" "$3" --namespace default --as "$1" 2>/dev/null) == yes ]]
}

cannot() {
  ! can "$@"
}

view_edit_and_admin_include_the_kinds_of_the_webhook() {
  local role generators=acraccesstokens.generators.external-secrets.io pull_secrets=acrpullsecrets.acr-pull.dev
  for role in view edit admin; do
    "$kubectl" create rolebinding "$role" --namespace default --clusterrole "$role" --user "$role" >/dev/null
  done
  for role in view edit admin; do
    cannot "$role" get "$pull_secrets"
    cannot "$role" create "$generators"
  done
  release install --create-namespace
  for role in view edit admin; do
    await 30 can "$role" get "$generators"
    can "$role" list "$pull_secrets"
  done
  cannot view create "$generators"
  for role in edit admin; do
    await 30 can "$role" create "$generators"
    can "$role" delete "$generators"
    cannot "$role" delete "$pull_secrets"
    cannot "$role" patch "$pull_secrets"
    cannot "$role" create clustergenerators.generators.external-secrets.io
  done
  # Only administrators of a namespace write generators, and only the others' reading is left to another chart.
  release upgrade --set rbac.aggregateToView=false,rbac.aggregateToEdit=false
  await 30 cannot edit get "$generators"
  cannot edit create "$generators"
  cannot view get "$pull_secrets"
  can admin create "$generators"
  release upgrade --set rbac.aggregateToView=false,rbac.aggregateToEdit=false,rbac.aggregateToAdmin=false
  await 30 cannot admin get "$generators"
  uninstall
  "$kubectl" delete rolebinding --namespace default view edit admin >/dev/null
}

# ready POD: as the kubelet of a node would report it.
ready() {
  "$kubectl" patch "$1" --namespace "$name" --subresource status --type merge --patch '{"status":{"phase":"Running",
    "conditions":[{"type":"Ready","status":"True"}]}}' >/dev/null
}

# evict POD, as `kubectl drain` does it.
evict() {
  printf '{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"%s","namespace":"%s"}}' "${1#pod/}" "$name" |
    "$kubectl" create --raw "/api/v1/namespaces/$name/pods/${1#pod/}/eviction" --filename - >/dev/null
}

budget_is_observed() {
  [[ $("$kubectl" get poddisruptionbudget "$name" --namespace "$name" --output 'jsonpath={.status.currentHealthy}') == "$1" ]]
}

a_drain_is_never_blocked_for_good() {
  local pod replicas
  for replicas in 1 2 3; do
    release install --create-namespace --set replicas="$replicas"
    await 30 pods_are "$name" "$replicas"
    for pod in $("$kubectl" get pods --namespace "$name" --output name); do
      ready "$pod"
    done
    ((replicas == 1)) || await 30 budget_is_observed "$replicas"
    evict "$pod"
    uninstall
    await 60 pods_are "$name" 0
  done
}

# Also a cluster whose Services have IPv6 addresses only. The API server itself stays on 127.0.0.1.
the_webhook_listens_on_all_addresses_of_both_ip_families() {
  local args
  start_control_plane "$work/ipv6" --service-cluster-ip-range=fd00:10:96::/112 --advertise-address=fd00::1
  release install --create-namespace --dry-run=server
  args=$(grep -e '--listen-addr' -e '--admin-addr' "$work/release" | tr -s ' \n' ' ')
  equal " - --listen-addr=[::]:8443 - --admin-addr=[::]:8080 " "$args"
  exec {hold}>&-
}

registered() {
  ! refusal "$kubectl" run probe --image=none --annotations acr-pull.dev/access-token=contoso --dry-run=server >/dev/null
}

# The steps that docs/operations.md recommends.
a_deleted_namespace_can_be_repaired() {
  release install --create-namespace
  "$kubectl" delete namespace "$name" >/dev/null
  contains "$(refusal "$kubectl" run probe --image=none --annotations acr-pull.dev/access-token=contoso --dry-run=server)" \
    'service "acr-pull-webhook" not found'
  "$kubectl" run other --image=none --dry-run=server >/dev/null
  "$kubectl" delete mutatingwebhookconfiguration acr-pull-webhook >/dev/null
  await 30 registered
  # Helm's own record was in the namespace.
  release install --create-namespace
  uninstall
  await 60 nothing_left || equal "" "$(everything)"
}

check a_limited_priority_class_is_allowed_by_the_quota
check a_limited_priority_class_is_allowed_by_the_quota_of_kustomize
check the_values_for_openshift_leave_users_to_the_platform
check view_edit_and_admin_include_the_kinds_of_the_webhook
check a_drain_is_never_blocked_for_good
check the_webhook_listens_on_all_addresses_of_both_ip_families
check a_deleted_namespace_can_be_repaired
