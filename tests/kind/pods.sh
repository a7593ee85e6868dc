# The network of Pods on nodes of the built image, and the Pod that proves it. Sourced by start.sh.
# shellcheck shell=bash disable=SC2154 # $kubectl is that of start.sh

# connect_pods: gives each node the range of addresses that Kubernetes chose for its Pods, and routes to the others'.
connect_pods() {
  local nodes node range routes address='{.status.addresses[?(@.type=="InternalIP")].address}'
  nodes=$("$kubectl" get nodes -o "jsonpath={range .items[*]}{.metadata.name} {.spec.podCIDR} $address{'\n'}{end}")
  while read -r node range _; do
    routes=$(awk -v node="$node" '$1 != node { print "ip route replace " $2 " via " $3 }' <<<"$nodes")
    podman exec --interactive "$node" sh -ec "cat >/etc/cni/net.d/10-pods.conflist; $routes" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "$range"}]],
    "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  done <<<"$nodes"
  "$kubectl" wait node --all --for=condition=Ready --timeout=120s >/dev/null || gave_up "its nodes are not ready"
}

# A Ready node proves little. This Pod proves its image, its network, and that Service traffic reaches its target.
probe() {
  "$kubectl" apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: cluster-probe, namespace: default}
spec:
  restartPolicy: Never
  containers: [{name: probe, image: "cluster.local/pause:1", imagePullPolicy: Never, args: ["10.96.0.1:443"]}]
YAML
  "$kubectl" wait pod cluster-probe --for=jsonpath='{.status.phase}'=Succeeded --timeout=120s >/dev/null ||
    gave_up "a Pod could not reach the Service 'kubernetes': $("$kubectl" logs cluster-probe 2>&1)"
  "$kubectl" delete pod cluster-probe --wait=false >/dev/null
}
