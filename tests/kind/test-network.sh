# Tests: Services and Pods of both nodes. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of test.sh

another_cache_has_a_node_whose_processes_were_killed() {
  mkdir "$work/node"
  go_build "$work/node/hello" "$root/tests/cluster/kubernetes" ./hello
  XDG_CACHE_HOME=$work/cache "$here/test-other-cache.sh" leave "$work/node/hello" "${nodes[0]}"
}

the_network_of_the_other_cache_is_still_there() {
  XDG_CACHE_HOME=$work/cache "$here/test-other-cache.sh" remove "${nodes[0]}"
}

# kind mounts /lib/modules again into a node that is started again.
the_removal_of_the_other_cache_keeps_what_this_cluster_needs() {
  [[ -d /lib/modules ]]
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
