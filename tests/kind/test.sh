#!/usr/bin/env bash
# The tests of the local cluster, on one of their own name, and of the refusal of clusters that are not kind's.
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/cluster/check.sh
source "$root/tests/cluster/check.sh"

unset KUBECONFIG ACR_PULL_CONTEXT
export ACR_PULL_CLUSTER_NAME=self-test
cluster=$here/cluster.sh
state=$(cache_dir)/kind/acr-pull-self-test
nodes=(acr-pull-self-test-control-plane acr-pull-self-test-worker)
work=$(mktemp -d)
trap '"$cluster" down || true; rm -rf "$work"' EXIT

kubectl() {
  "$(<"$state/kubectl")" --kubeconfig="$state/kubeconfig" "$@"
}

up_makes_a_cluster_of_two_ready_nodes() {
  equal "export KUBECONFIG=$state/kubeconfig" "$(HTTPS_PROXY=http://192.0.2.1:3128 "$cluster" up)"
  equal 600 "$(stat -c %a "$state/kubeconfig")"
  equal 2 "$(kubectl get nodes | grep -c ' Ready ')"
  equal running "$("$cluster" status)"
}

# The containerd of a node would ask the proxy for the emulated registries.
the_proxy_of_the_caller_is_not_passed_to_the_nodes() {
  equal "" "$("$cluster" exec "${nodes[1]}" sh -c 'cat /etc/systemd/system.conf.d/* | grep 192.0.2.1')"
}

a_second_up_keeps_the_cluster() {
  local before
  before=$(kubectl get nodes -o 'jsonpath={.items[*].metadata.uid}')
  "$cluster" up
  equal "$before" "$(kubectl get nodes -o 'jsonpath={.items[*].metadata.uid}')"
}

exec_passes_stdin_arguments_and_the_exit_status() {
  local status=0
  equal "a  b" "$("$cluster" exec "${nodes[1]}" sh -c 'cat; exit 0' <<<"a  b")"
  "$cluster" exec "${nodes[1]}" sh -c 'exit 7' || status=$?
  equal 7 "$status"
}

up_replaces_a_cluster_whose_control_plane_was_killed() {
  "$cluster" exec "${nodes[0]}" sh -c 'systemctl stop kubelet containerd; pkill -KILL kube-apiserver'
  contains "$("$cluster" status || true)" broken
  "$cluster" up
  equal 2 "$(kubectl get nodes | grep -c ' Ready ')"
}

# shellcheck source=tests/kind/test-network.sh
source "$here/test-network.sh"
# shellcheck source=tests/kind/test-foreign.sh
source "$here/test-foreign.sh"
# shellcheck source=tests/kind/test-leftovers.sh
source "$here/test-leftovers.sh"

"$cluster" down
traces >"$work/traces"
check another_cache_has_a_node_whose_processes_were_killed
check up_makes_a_cluster_of_two_ready_nodes
check the_proxy_of_the_caller_is_not_passed_to_the_nodes
check the_network_of_the_other_cache_is_still_there
check the_removal_of_the_other_cache_keeps_what_this_cluster_needs
check a_second_up_keeps_the_cluster
check pods_of_both_nodes_answer_through_one_service
check exec_passes_stdin_arguments_and_the_exit_status
check a_cluster_that_is_not_kinds_is_refused_unless_its_context_is_named
check tests_refuse_to_replace_a_webhook_that_they_did_not_deploy
check packages_are_not_installed_without_consent
check up_replaces_a_cluster_whose_control_plane_was_killed
check down_leaves_nothing
check down_leaves_nothing_of_a_cluster_that_was_killed_while_it_started
summary
