# What the demo checks about its Pod. Sourced by demo.sh.
# shellcheck shell=bash disable=SC2154 # $namespace is that of demo.sh

pod() {
  kube --namespace "$namespace" get pod app -o "jsonpath=$1"
}

waiting_for() {
  [[ $(pod '{.status.containerStatuses[0].state.waiting.reason}') == "$1" ]]
}

phase_is() {
  [[ $(pod '{.status.phase}') == "$1" ]]
}

# why_the_pull_failed: prints the innermost cause that containerd reports.
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
  events_tell Pulled || die "the kubelet should have reported that it pulled the image"
  show "Warnings about the Pod          none, not one ErrImagePull"
  show
  show "\$ kubectl -n $namespace get acrps"
  indented kube --namespace "$namespace" get acrps
  show
  show "\$ kubectl -n $namespace get pod app"
  indented kube --namespace "$namespace" get pod app
}
