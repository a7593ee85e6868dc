# The tests of what the documents recommend, with the text of the documents. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of test.sh

# block FILE TEXT: the code block of the file that contains the text.
block() {
  awk -v text="$2" '/^ *```/ { if (inside && index(block, text)) printf "%s", block; inside = !inside; block = ""; next }
    inside { block = block $0 "\n" }' "$root/docs/$1"
}

# command_of FILE TEXT: runs the command in that block.
command_of() {
  local line
  line=$(block "$1" "$2")
  contains "$line" "$2"
  PATH=$(dirname "$kubectl"):$PATH bash -euo pipefail -c "${line#\$ }"
}

workload() {
  printf '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"%s"},"spec":{"selector":{"matchLabels":{"app":"%s"}},
    "template":{"metadata":{"labels":{"app":"%s"}},"spec":{"serviceAccountName":"%s","containers":[{"name":"app","image":"%s"}]}}}}' \
    "$1" "$1" "$1" "$2" "$3" | "$kubectl" create --namespace team-a --filename - >/dev/null
}

# docs/migrating.md
workloads_without_a_client_id_are_listed_for_a_namespace() {
  "$kubectl" create namespace team-a >/dev/null
  "$kubectl" create serviceaccount app --namespace team-a >/dev/null
  "$kubectl" annotate serviceaccount app --namespace team-a azure.workload.identity/client-id=x >/dev/null
  workload ready app contoso.azurecr.io/app:1
  workload elsewhere default docker.io/app:1
  workload unready default contoso.azurecr.io/app:1
  equal "Deployment/unready: service account default" "$(command_of migrating.md "IN(\$ready[])")"
}

# docs/operations.md
restored_secrets_without_an_owner_are_listed() {
  "$kubectl" create secret docker-registry acr-pull-restored --docker-server a --docker-username b --docker-password c >/dev/null
  "$kubectl" create secret docker-registry other --docker-server a --docker-username b --docker-password c >/dev/null
  "$kubectl" label secret acr-pull-restored app.kubernetes.io/managed-by=acr-pull-webhook >/dev/null
  equal "kubectl delete secret --namespace default acr-pull-restored" "$(command_of operations.md 'ownerReferences == null')"
  "$kubectl" delete secret acr-pull-restored other >/dev/null
}

# install_hooks NAMESPACE: a chart with a Job as hook that cannot finish, because the control plane has no node.
install_hooks() {
  contains "$(refusal "$helm" install hooks "$work/hooks" --namespace "$1" --create-namespace --timeout 3s)" 'deadline exceeded'
}

# docs/install.md
a_generator_that_is_a_hook_exists_before_the_job_of_a_hook() {
  mkdir -p "$work/hooks/templates"
  printf 'apiVersion: v2\nname: hooks\nversion: 0.1.0\n' >"$work/hooks/Chart.yaml"
  cat >"$work/hooks/templates/job.yaml" <<'YAML'
apiVersion: batch/v1
kind: Job
metadata:
  name: migrate
  annotations: {helm.sh/hook: "pre-install,pre-upgrade"}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: app, image: contoso.azurecr.io/app:1}]}
YAML
  "$kubectl" apply --kustomize "$root/deploy/kustomize/generators" >/dev/null
  "$kubectl" wait --for=condition=Established crd/acraccesstokens.generators.external-secrets.io >/dev/null
  {
    block install.md 'helm.sh/hook-weight'
    printf 'spec: {registry: contoso.azurecr.io, auth: {workloadIdentity: {}}}\n'
  } >"$work/generator.yaml"
  grep -v helm.sh "$work/generator.yaml" | sed 's/annotations:/annotations: {}/' >"$work/hooks/templates/generator.yaml"
  install_hooks ordinary
  equal "" "$("$kubectl" get acraccesstokens --namespace ordinary --output name)"
  cp "$work/generator.yaml" "$work/hooks/templates/generator.yaml"
  install_hooks hooks
  equal acraccesstoken.generators.external-secrets.io/contoso "$("$kubectl" get acraccesstokens --namespace hooks --output name)"
}

command -v jq >/dev/null || die "'jq' is missing: install the package jq"
check workloads_without_a_client_id_are_listed_for_a_namespace
check restored_secrets_without_an_owner_are_listed
check a_generator_that_is_a_hook_exists_before_the_job_of_a_hook
