#!/usr/bin/env bash
# The whole story on a real cluster: one private image, pulled without and with the annotation. `make demo` runs it.
# It uses the kind cluster of KUBECONFIG or the cluster of ACR_PULL_CONTEXT if set, otherwise the local kind cluster.
set -euo pipefail
# shellcheck source=tests/e2e/emulator.sh
source "$(dirname "${BASH_SOURCE[0]}")/emulator.sh"

namespace=acr-pull-demo
manifests=$root/tests/e2e/manifests/demo
steps=5 number=0

main() {
  trap 'ended $?' EXIT
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

# The cluster ----------------------------------------------------------------

# Before the long steps: nobody should wait for minutes to hear that something is missing.
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

# The Pod --------------------------------------------------------------------

without_the_annotation() {
  grep -v -e '^  annotations:' -e '^    acr-pull.dev/access-token:'
}

pod() {
  kube --namespace "$namespace" get pod app -o "jsonpath=$1"
}

waiting_for() {
  [[ $(pod '{.status.containerStatuses[0].state.waiting.reason}') == "$1" ]]
}

phase_is() {
  [[ $(pod '{.status.phase}') == "$1" ]]
}

# why_the_pull_failed: the innermost cause, as containerd tells it.
why_the_pull_failed() {
  kube --namespace "$namespace" get events --field-selector reason=Failed -o json |
    jq -r '[.items[].message | select(startswith("Failed to pull"))][0] // "" | sub(".*(?<cause>failed to )"; "\(.cause)")'
}

# events_tell REASON: whether an event of the Pod that runs, not of the one before it that had its name, has that reason.
events_tell() {
  [[ -n $(kube --namespace "$namespace" get events --field-selector "involvedObject.uid=$(pod '{.metadata.uid}'),reason=$1" -o name) ]]
}

# What must be true at the end, each shown and checked.
tell_and_check() {
  local secret expires subjects failed
  secret=$(pod '{.spec.imagePullSecrets[*].name}')
  [[ -n $secret && $secret != *' '* ]] || die "the Pod should name one pull secret, but names '$secret'"
  show "The Pod names the pull secret   $secret"

  subjects=$(emulator_get /requests | jq -r '[.[] | select(.subject and .status == 200) | .subject] | unique | join(" ")')
  [[ $subjects == "system:serviceaccount:$namespace:app" ]] ||
    die "Entra should have given a token to the Pod's service account alone, but it gave to '$subjects'"
  show "Entra was asked by              $subjects"

  expires=$(kube --namespace "$namespace" get acrps "$secret" -o 'jsonpath={.status.expirationTime}')
  jq --exit-status --null-input --arg time "$expires" '$time | sub("[.][0-9]+"; "") | fromdateiso8601 > now' >/dev/null 2>&1 || die "the pull secret should expire in the future, not at '$expires'"
  show "Its token is good until         $expires"

  failed=$(kube --namespace "$namespace" get events --field-selector "involvedObject.uid=$(pod '{.metadata.uid}'),type=Warning" \
    -o 'jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}')
  [[ -z $failed ]] || die "the Pod should have started without a warning, but: $failed"
  events_tell Pulled || die "the kubelet should have told that it pulled the image"
  show "Warnings about the Pod          none, not one ErrImagePull"
  show
  show "\$ kubectl -n $namespace get acrps"
  indented kube --namespace "$namespace" get acrps
  show
  show "\$ kubectl -n $namespace get pod app"
  indented kube --namespace "$namespace" get pod app
}

# The page -------------------------------------------------------------------

if [[ -t 1 ]]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' dim='' green='' plain=''
fi

step() {
  number=$((number + 1)) step_started=$SECONDS
  printf '\n%s%d/%d  %s%s\n' "$bold" "$number" "$steps" "$1" "$plain"
}

done_with() {
  printf '     %s✔ %s%s %s(%d s)%s\n' "$green" "$1" "$plain" "$dim" "$((SECONDS - step_started))" "$plain"
}

show() {
  printf '%s\n' "${*:-}" | fold -s -w 100 | sed 's/^./     &/'
}

# indented COMMAND...: with all that it prints set off.
indented() {
  local line
  "$@" 2>&1 | while IFS= read -r line; do
    printf '     %s%s%s\n' "$dim" "$line" "$plain"
  done
}

ended() {
  printf '\n'
  if (($1)); then
    printf 'demo: failed after %d s in step %d of %d; the reason is above\n' "$SECONDS" "$number" "$steps"
  else
    printf 'demo: ok\n'
  fi
}

main
