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

# --- the cluster

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

# With a Pod on each node: kube-proxy chooses between them by an extension of iptables with a library of its own.
pods_of_both_nodes_answer_through_one_service() {
  go_build "$work/hello" "$root/tests/cluster/kubernetes" ./hello
  "$root/tests/cluster/image-archive.sh" hello:1 "$work/hello" >"$work/hello.tar"
  "$cluster" load "$work/hello.tar"
  kubectl apply -f - <<'YAML'
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: hello}
spec:
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      tolerations: [{operator: Exists}]
      containers: [{name: hello, image: "hello:1", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{port: 80, targetPort: 8080}]
YAML
  kubectl rollout status daemonset/hello --timeout=60s
  local pod address
  address=$(kubectl get service hello -o 'jsonpath={.spec.clusterIP}')
  for pod in $(kubectl get pods --selector app=hello -o name); do
    await 20 answers "$pod" "$address"
    for _ in {1..10}; do answers "$pod" "$address"; done
  done
  for pod in $(kubectl get pods --selector app=hello -o name); do
    contains "$(kubectl logs "$pod")" "asked for /"
  done
}

answers() {
  [[ $(kubectl exec "$1" -- /hello "http://$2") == "hello from a Pod" ]]
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

# --- what it leaves

# The containers of this cluster, whichever provider runs them.
containers() (
  if ! docker info >/dev/null 2>&1; then own_podman && tool=podman; fi
  "${tool:-docker}" ps --all --quiet --filter label=io.x-k8s.kind.cluster=acr-pull-self-test
)

# What a cluster could leave, without the chains of the firewall, which podman keeps empty. Another cluster has most of
# it, too: while one is up, only what is this one's counts.
others=$(pgrep -x conmon || true)
traces() {
  {
    containers
    ls -d "$state"
    [[ -n $others ]] || {
      cut -d ' ' -f 5 /proc/self/mountinfo
      ip -o link | awk -F '[:@] *' '{ print $2 }'
      ip -4 -o address | awk '{ print $2, $4 }'
      ip -4 route
      ls /run/netns
      find /sys/fs/cgroup -type d | grep -E 'libpod|kube'
      ls -d /lib/modules
    }
  } 2>/dev/null | sort || true
}

down_leaves_nothing() {
  "$cluster" down
  equal "$(<"$work/traces")" "$(traces)"
  "$cluster" down
}

is_starting() {
  [[ -n $(containers) ]]
}

down_leaves_nothing_of_a_cluster_that_was_killed_while_it_started() {
  local starting
  setsid "$cluster" up >"$work/up" 2>&1 &
  starting=$!
  await 60 is_starting
  kill -KILL -- "-$starting"
  contains "$("$cluster" status || true)" "broken (it did not start completely)"
  "$cluster" down
  equal "$(<"$work/traces")" "$(traces)"
}

# --- which clusters are used

# A context of another name for the same cluster: what somebody's kubeconfig looks like.
a_cluster_that_is_not_kinds_is_refused_unless_its_context_is_named() {
  local script
  kubectl config view --raw --flatten | sed 's/kind-acr-pull-self-test/production/' >"$work/production"
  kubectl get all,namespaces --all-namespaces -o name >"$work/before"
  for script in demo.sh deploy.sh run.sh helm.sh; do
    contains "$(KUBECONFIG=$work/production refusal "$root/tests/e2e/$script")" "set ACR_PULL_CONTEXT='production'"
  done
  contains "$(KUBECONFIG=$work/production refusal make -C "$root" test)" "set ACR_PULL_CONTEXT='production'"
  equal "$(<"$work/before")" "$(kubectl get all,namespaces --all-namespaces -o name)"
  export KUBECONFIG=$work/production
  contains "$(ACR_PULL_CONTEXT=production "$root/tests/e2e/run.sh" check 2>&1)" "context 'production'"
  contains "$(ACR_PULL_CONTEXT=absent refusal "$root/tests/e2e/run.sh" check)" "no context 'absent'"
}

tests_refuse_to_replace_a_webhook_that_they_did_not_deploy() {
  kubectl config view --raw --flatten >"$work/users"
  kubectl create namespace acr-pull-webhook
  contains "$(KUBECONFIG=$work/users refusal "$root/tests/e2e/run.sh" helm)" \
    "is installed on this cluster, and not by these tests"
  kubectl label namespace acr-pull-webhook acr-pull.dev/end-to-end-tests=true
  KUBECONFIG=$work/users "$root/tests/e2e/run.sh" check
  kubectl delete namespace acr-pull-webhook
}

packages_are_not_installed_without_consent() {
  export XDG_CACHE_HOME=$work CI=
  # On a terminal, on which nobody answers. script prints what the program prints on standard error.
  on_a_terminal() {
    script --quiet --return --command "$*" /dev/null </dev/null >&2
  }
  contains "$(refusal on_a_terminal "$root/tests/cluster/packages.sh" no-such-package)" "make packages"
}

"$cluster" down
traces >"$work/traces"
check up_makes_a_cluster_of_two_ready_nodes
check the_proxy_of_the_caller_is_not_passed_to_the_nodes
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
