#!/usr/bin/env bash
# A kind cluster of two nodes for demo and tests. README.md says how it works and where its parts come from.
#
#   KUBERNETES=oldest               the oldest release that the webhook supports; default: the newest
#   ACR_PULL_CLUSTER_NAME=local     another name is another cluster beside it
#   KIND_EXPERIMENTAL_PROVIDER=     docker, podman or nerdctl, as kind knows them, with the user's settings
#   KIND_NODE_IMAGE=                a node image of yours
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/kind/provider.sh
source "$here/provider.sh"

usage="usage: cluster.sh COMMAND
  up                    starts the cluster if it is not running, and prints 'export KUBECONFIG=...'
  down                  removes it, in whatever state it is
  status                says whether it is running (status 0), broken (1) or down (3)
  kubeconfig            prints the path of its kubeconfig
  kubectl               prints the path of a kubectl that fits it
  program               prints the path of the program kind
  exec NODE COMMAND...  runs COMMAND on a node, with your stdin
  load FILE...          imports images (docker-archive or oci-archive) into the nodes"
name=acr-pull-${ACR_PULL_CLUSTER_NAME:-local}
state=$(cache_dir)/kind/$name
kubeconfig=$state/kubeconfig

main() {
  local command=${1:-}
  [[ $command == @(up|down|status|kubeconfig|kubectl|program|exec|load) ]] || { say "$usage" && exit 2; }
  shift
  "command_$command" "$@"
}

command_up() {
  mkdir -p "${state%/*}"
  exec {lock}>"$state.lock"
  flock "$lock"
  if [[ $(command_status || true) != running ]]; then
    (command_down)
    # The processes of the nodes must not keep the lock.
    "$here/start.sh" "$name" "$state" {lock}>&-
  fi
  printf 'export KUBECONFIG=%s\n' "$kubeconfig"
}

command_down() {
  [[ -s $state/provider ]] || return 0
  use_provider
  # Nothing on a node has to be stopped in order.
  "$kind" get nodes --name "$name" 2>/dev/null | xargs --no-run-if-empty "$tool" kill >/dev/null 2>&1 || true
  # A container that was being created when its cluster was stopped cannot be deleted until that has ended.
  await 30 delete_cluster || die "kind could not delete the cluster '$name': $(<"$state/delete.log")"
  [[ $provider != own ]] || remove_orphans
  rm -r "$state"
  [[ $provider != own ]] || "$here/tidy.sh"
}

delete_cluster() {
  "$kind" delete cluster --name "$name" --kubeconfig "$kubeconfig" >"$state/delete.log" 2>&1
}

command_status() {
  if [[ ! -s $state/provider ]]; then
    echo down && return 3
  elif [[ ! -f $state/complete ]]; then
    echo "broken (it did not start completely)" && return 1
  elif ! kubectl get --raw=/readyz --request-timeout=5s >/dev/null 2>&1; then
    echo "broken (its API server is not ready)" && return 1
  fi
  echo running
}

command_kubeconfig() { must_be_up && echo "$kubeconfig"; }
command_kubectl() { must_be_up && cat "$state/kubectl"; }
command_program() { kind_program; }

command_exec() {
  must_be_up && use_provider
  exec "$tool" exec --interactive "$@"
}

command_load() {
  local file
  must_be_up && use_provider
  for file; do
    "$kind" load image-archive "$file" --name "$name" >&2
  done
}

must_be_up() {
  [[ -f $state/complete ]] || die "the cluster '$name' is not up: run 'make cluster' first"
}

kubectl() {
  "$(<"$state/kubectl")" --kubeconfig="$kubeconfig" "$@"
}

main "$@"; exit
