# The tests of cluster.sh, on a cluster of their own name. Need root. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # $here, $work and $bin are test.sh's

((EUID == 0)) || die "the tests of the cluster need root; 'test.sh control-plane' does not"
export ACR_PULL_CLUSTER_NAME=self-test
cluster=$here/cluster.sh
kubeconfig=$(cache_dir)/cluster/self-test/kubeconfig

kubectl() {
  "$bin/kubectl" --kubeconfig="$kubeconfig" "$@"
}

# --- what the cluster can do

up_makes_a_cluster_with_a_ready_node() {
  equal "export KUBECONFIG=$kubeconfig" "$("$cluster" up)"
  equal 600 "$(stat -c %a "$kubeconfig")"
  contains "$(kubectl get node node)" " Ready "
  contains "$("$cluster" status)" running
  equal "$kubeconfig" "$("$cluster" kubeconfig)"
}

a_second_up_keeps_the_cluster() {
  local before
  before=$("$cluster" pid)
  equal "export KUBECONFIG=$kubeconfig" "$("$cluster" up)"
  equal "$before" "$("$cluster" pid)"
}

a_pod_from_a_loaded_image_answers_through_its_service() {
  progress "building the test image" go_build "$work/hello" "$here/kubernetes" ./hello
  "$here/image-archive.sh" hello:1 "$work/hello" >"$work/hello.tar"
  equal "loaded docker.io/library/hello:1" "$("$cluster" load "$work/hello.tar")"
  kubectl create deployment hello --image=hello:1 --port=8080
  kubectl expose deployment hello --port=80 --target-port=8080
  kubectl rollout status deployment/hello --timeout=60s
  # From the Pod itself (so kubectl exec works too), from the node, and by the node's port from this machine.
  await 20 answers kubectl exec deployment/hello -- /hello "http://$(kubectl get service hello -o 'jsonpath={.spec.clusterIP}')"
  kubectl patch service hello -p '{"spec":{"type":"NodePort"}}'
  cp "$work/hello" "$(dirname "$kubeconfig")/var/tmp/hello"
  await 20 answers "$cluster" exec /var/tmp/hello "http://$(kubectl get service hello -o 'jsonpath={.spec.clusterIP}')"
  await 20 answers "$work/hello" \
    "http://$(kubectl get node node -o 'jsonpath={.status.addresses[0].address}'):$(kubectl get service hello -o 'jsonpath={.spec.ports[0].nodePort}')"
}

# answers COMMAND...
answers() {
  [[ $("$@" 2>"$work/answers.err") == "hello from a Pod" ]]
}

the_logs_of_a_pod_can_be_read() {
  contains "$(kubectl logs deployment/hello)" "asked for /"
}

a_port_of_a_pod_can_be_forwarded() {
  local forwarder port
  kubectl port-forward deployment/hello :8080 >"$work/forward" 2>&1 &
  forwarder=$!
  await 20 grep -q '^Forwarding from 127' "$work/forward" || { cat "$work/forward" && return 1; }
  port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$work/forward")
  await 10 answers "$work/hello" "http://127.0.0.1:$port" || { cat "$work/forward" "$work/answers.err" && return 1; }
  kill "$forwarder"
}

an_oci_archive_without_a_full_name_loads_as_the_kubelet_calls_it() {
  # What buildah and skopeo write, made by hand so that neither is needed: the same image under a bare name.
  local oci=$work/oci size
  mkdir -p "$oci/blobs/sha256" "$oci/docker"
  tar -C "$oci/docker" -xf "$work/hello.tar"
  add_blob() { sum=$(sha256sum <"$1" | cut -d ' ' -f 1) && size=$(stat -c %s "$1") && cp "$1" "$oci/blobs/sha256/$sum"; }
  local sum config layer
  add_blob "$oci/docker/config.json"
  config="{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:$sum\",\"size\":$size}"
  add_blob "$oci/docker/layer.tar"
  layer="{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:$sum\",\"size\":$size}"
  echo "{\"schemaVersion\":2,\"config\":$config,\"layers\":[$layer]}" >"$oci/manifest"
  add_blob "$oci/manifest"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$oci/oci-layout"
  echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:$sum\",\"size\":$size,
    \"annotations\":{\"org.opencontainers.image.ref.name\":\"team/bare:2\"}}]}" >"$oci/index.json"
  tar -C "$oci" -cf "$work/oci.tar" oci-layout index.json blobs
  equal "loaded docker.io/team/bare:2" "$("$cluster" load "$work/oci.tar")"
  kubectl run bare --image=team/bare:2 --image-pull-policy=Never
  kubectl wait --for=condition=Ready pod/bare --timeout=60s
}

an_archive_that_is_none_is_refused_by_name() {
  echo nonsense >"$work/nonsense.tar"
  contains "$(refusal "$cluster" load "$work/nonsense.tar")" "could not import $work/nonsense.tar"
  contains "$(refusal "$cluster" load "$work/absent.tar")" "no readable file $work/absent.tar"
}

exec_passes_stdin_arguments_and_the_exit_status() {
  local status=0
  equal "a  b" "$("$cluster" exec sh -c 'cat; exit 0' <<<"a  b")"
  equal "x y" "$("$cluster" exec printf %s "x y")"
  "$cluster" exec sh -c 'exit 7' || status=$?
  equal 7 "$status"
  contains "$("$cluster" exec ctr -n k8s.io images ls)" cluster.local/pause:1
  equal ok "$("$cluster" exec kubectl get --raw=/readyz)"
}

what_exec_writes_stays_on_the_node() {
  local before
  before=$(cat /etc/hosts)
  "$cluster" exec sh -c 'echo "10.0.0.1 contoso.azurecr.io" >>/etc/hosts; mkdir /etc/containerd/certs.d/contoso.azurecr.io; touch /run/mine /var/mine /tmp/mine'
  contains "$("$cluster" exec getent hosts contoso.azurecr.io)" 10.0.0.1
  equal "$before" "$(cat /etc/hosts)"
  [[ ! -e /etc/containerd/certs.d/contoso.azurecr.io && ! -e /run/mine && ! -e /var/mine && ! -e /tmp/mine ]]
}

the_metadata_address_can_be_given_to_the_node() {
  "$cluster" exec ip address add 169.254.169.254/32 dev lo
  "$cluster" exec ip address delete 169.254.169.254/32 dev lo
}

nothing_on_the_node_reaches_beyond_this_machine() {
  # No route at all, rather than a filter: 192.0.2.1 is nobody's (RFC 5737).
  contains "$(refusal "$cluster" exec ip route get 192.0.2.1)" "unreachable"
}

controllers_run_as_in_any_cluster() {
  kubectl create namespace limited
  kubectl -n limited create quota none --hard=count/secrets=0
  await 20 kubectl_refuses_a_secret
  kubectl delete namespace limited --timeout=60s
}

kubectl_refuses_a_secret() {
  [[ $(refusal kubectl -n limited create secret generic one) == *"exceeded quota: none"* ]]
}

# --- what it leaves

# The traces that a cluster could leave outside of its namespaces. Other clusters' are not this one's.
traces() {
  echo "--- mounts" && cut -d ' ' -f 5 /proc/self/mountinfo
  echo "--- interfaces" && ip -o link | awk -F '[:@] *' '{ print $2 }'
  echo "--- addresses and routes" && ip -4 -o address | awk '{ print $2, $4 }' && ip -4 route
  echo "--- network namespaces" && ls /run/netns 2>/dev/null
  echo "--- cgroups" && find /sys/fs/cgroup -type d | grep -E 'acr-pull|kube|k8s|containerd'
  echo "--- rules" && nft list ruleset
  echo "--- settings" && cat /proc/sys/kernel/panic /proc/sys/kernel/panic_on_oops /proc/sys/vm/overcommit_memory /proc/sys/net/ipv4/ip_forward
  echo "--- folders" && find /etc/cni /etc/containerd /etc/kubernetes /var/lib/{kubelet,containerd,cni} /run/{containerd,netns} /var/log/{pods,containers} 2>/dev/null
  echo "--- state" && ls -d "$(cache_dir)/cluster/self-test" 2>/dev/null
} 2>&1

# Without those of clusters of other names, which may come and go meanwhile.
own_traces() {
  traces | grep -vE "acr-pull-webhook-[a-z0-9-]*" | grep -vE "acrpull|10\.213\." || true
  traces | grep -E "acr-pull-webhook-self-test|$(link)" || true
}

link() {
  printf 'acrpull%04x' $(($(printf self-test | cksum | cut -d ' ' -f 1) % 16384))
}

# The namespaces of every process in the cluster, as the kernel numbers them, but for those that this script is in too.
namespaces() {
  local process
  for process in $(find /sys/fs/cgroup -path '*/acr-pull-webhook-self-test/*' -name cgroup.procs -exec cat {} + | sort -u); do
    readlink "/proc/$process/ns/"{net,mnt,pid,uts,ipc,cgroup} 2>/dev/null || true
  done | sort -u | grep -vxFf <(readlink /proc/self/ns/{net,mnt,pid,uts,ipc,cgroup})
}

processes_in() {
  find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/*' -printf '%h %l\n' 2>/dev/null | grep -wFf "$1" || true
}

# To be awaited: a killed process stays a little until its parent, init, takes note.
nobody_is_in() {
  [[ -z $(processes_in "$1") ]]
}

# A running Pod, so that there are shims, mounts and interfaces to leave behind.
up_with_a_pod() {
  "$cluster" up
  "$cluster" load "$work/hello.tar"
  kubectl run hello --image=hello:1
  kubectl wait --for=condition=Ready pod/hello --timeout=60s
}

# killed_leaves_nothing COMMAND...: after COMMAND, which kills a part, 'down' leaves nothing.
killed_leaves_nothing() {
  own_traces >"$work/before"
  up_with_a_pod
  namespaces >"$work/namespaces"
  (($(wc -l <"$work/namespaces") >= 8)) || { echo "too few namespaces were found to prove anything" && return 1; }
  ! nobody_is_in "$work/namespaces" || { echo "no process was found in them" && return 1; }
  "$@"
  "$cluster" down
  await 10 nobody_is_in "$work/namespaces" || { processes_in "$work/namespaces" && return 1; }
  equal "$(<"$work/before")" "$(own_traces)"
  # Again, with nothing there.
  "$cluster" down
}

kill_on_node() {
  "$cluster" exec pkill -KILL -x "$1"
}

kill_node() {
  kill -KILL "$("$cluster" pid)"
}

kill_supervisor() {
  kill -KILL "$(awk '$1 == "PPid:" { print $2 }' "/proc/$("$cluster" pid)/status")"
}

down_leaves_nothing() { killed_leaves_nothing true; }
down_leaves_nothing_after_containerd_was_killed() { killed_leaves_nothing kill_on_node containerd; }
down_leaves_nothing_after_a_shim_was_killed() { killed_leaves_nothing kill_on_node containerd-shim; }
down_leaves_nothing_after_the_kubelet_was_killed() { killed_leaves_nothing kill_on_node kubelet; }
down_leaves_nothing_after_etcd_was_killed() { killed_leaves_nothing kill_on_node etcd; }
down_leaves_nothing_after_the_node_was_killed() { killed_leaves_nothing kill_node; }
down_leaves_nothing_after_the_supervisor_was_killed() { killed_leaves_nothing kill_supervisor; }

down_leaves_nothing_of_a_cluster_killed_while_it_starts() {
  own_traces >"$work/before"
  "$cluster" up >"$work/up.out" 2>"$work/up.err" &
  local starting=$!
  await 20 "$cluster" pid
  kill -KILL "$starting"
  contains "$("$cluster" status || true)" "broken (it has not come up completely)"
  "$cluster" down
  equal "$(<"$work/before")" "$(own_traces)"
}

up_says_that_a_cluster_is_broken_and_makes_it_anew() {
  "$cluster" up
  kill_on_node kubelet
  await 10 is_broken
  contains "$("$cluster" up 2>&1)" "is broken (its node is gone, but not all that belongs to it)"
  contains "$(kubectl get node node)" " Ready "
  "$cluster" down
}

is_broken() {
  [[ $("$cluster" status || true) == broken* ]]
}

an_address_in_use_is_refused() {
  local network
  "$cluster" up
  network=$(ip -4 -o address show "$(link)" | awk '{ print $4 }')
  "$cluster" down
  ip address add "$network" dev lo
  # shellcheck disable=SC2064 # the network of now
  trap "ip address delete '$network' dev lo" EXIT
  contains "$(refusal "$cluster" up)" "in use on this machine: give the cluster another name by ACR_PULL_CLUSTER_NAME"
}

"$cluster" down
check up_makes_a_cluster_with_a_ready_node
check a_second_up_keeps_the_cluster
check a_pod_from_a_loaded_image_answers_through_its_service
check the_logs_of_a_pod_can_be_read
check a_port_of_a_pod_can_be_forwarded
check an_oci_archive_without_a_full_name_loads_as_the_kubelet_calls_it
check an_archive_that_is_none_is_refused_by_name
check exec_passes_stdin_arguments_and_the_exit_status
check what_exec_writes_stays_on_the_node
check the_metadata_address_can_be_given_to_the_node
check nothing_on_the_node_reaches_beyond_this_machine
check controllers_run_as_in_any_cluster
"$cluster" down
check down_leaves_nothing
check down_leaves_nothing_after_containerd_was_killed
check down_leaves_nothing_after_a_shim_was_killed
check down_leaves_nothing_after_the_kubelet_was_killed
check down_leaves_nothing_after_etcd_was_killed
check down_leaves_nothing_after_the_node_was_killed
check down_leaves_nothing_after_the_supervisor_was_killed
check down_leaves_nothing_of_a_cluster_killed_while_it_starts
check up_says_that_a_cluster_is_broken_and_makes_it_anew
check an_address_in_use_is_refused
