#!/usr/bin/env bash
# The whole story on a real cluster: one private image, pulled without and with the annotation. `make demo` runs it.
# It uses the kind cluster of KUBECONFIG or the cluster of ACR_PULL_CONTEXT if set, otherwise the local kind cluster.
set -euo pipefail
# shellcheck source=tests/e2e/emulator.sh
source "$(dirname "${BASH_SOURCE[0]}")/emulator.sh"
# shellcheck source=tests/e2e/demo-checks.sh
source "$root/tests/e2e/demo-checks.sh"
# shellcheck source=tests/e2e/demo-page.sh
source "$root/tests/e2e/demo-page.sh"

# The release profile takes minutes longer, and a demo does not show the difference.
export PROFILE=${PROFILE:-quick}
namespace=acr-pull-demo
manifests=$root/examples/kind-with-emulator
steps=5 number=0

main() {
  trap 'ended $?' EXIT
  # Without these, the status of a demo that a signal ends would be that of the last command, which may be 0.
  trap 'exit 130' INT
  trap 'exit 143' TERM
  step "A cluster"
  check_requirements
  start_cluster
  use_cluster
  done_with "$(kube version -o json | jq -r '"Kubernetes " + .serverVersion.gitVersion'), $CLUSTER"

  step "The webhook, and a stand-in for Azure"
  indented "$root/tests/e2e/deploy.sh"
  kube delete namespace "$namespace" --ignore-not-found --timeout=120s >/dev/null
  apply --filename "$manifests/identity.yaml"
  post_world "$manifests/world.yaml"
  emulator_delete /requests >/dev/null
  done_with "both run"

  step "A Pod with a private image and nothing else"
  without_the_annotation <"$manifests/pod.yaml" | kube create --filename - >/dev/null
  wait_for 90 "the Pod without the annotation is in ImagePullBackOff" waiting_for ImagePullBackOff
  show "$(why_the_pull_failed)"
  kube --namespace "$namespace" delete pod app >/dev/null
  done_with "ImagePullBackOff, as it must be"

  step "The same Pod, two lines longer"
  show "metadata:"
  show "  annotations:"
  show "    acr-pull.dev/access-token: contoso"
  kube create --filename "$manifests/pod.yaml" >/dev/null
  wait_for 60 "the Pod with the annotation is running" phase_is Running
  done_with "Running"

  step "What happened in between"
  tell_and_check
  done_with "all as promised"
  cat <<TEXT

The Pod still runs. Look at it:
  export KUBECONFIG=$KUBECONFIG
  kubectl --namespace $namespace get pod app --output yaml
TEXT
  [[ $CLUSTER != local ]] || printf '%s\n' "'make cluster-down' removes the cluster."
}

# Before the long steps, so that a missing tool is reported at once.
check_requirements() {
  local tool
  for tool in cargo:https://rustup.rs go:https://go.dev/dl/; do
    command -v "${tool%%:*}" >/dev/null || die "'${tool%%:*}' is missing: everything is built from source; install it from ${tool#*:}"
  done
  need jq
}

start_cluster() {
  foreign_named || indented "$local_cluster" up
}

without_the_annotation() {
  grep -v -e '^  annotations:' -e '^    acr-pull.dev/access-token:'
}

main
