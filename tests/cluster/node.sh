#!/usr/bin/env bash
# node.sh STATE BIN ADDRESS: the node, as PID 1 of namespaces of its own. Started by 'cluster.sh up', never by hand.
#
# Everything that the node writes goes to a private /etc, /run, /tmp and /var; all its mounts, interfaces, cgroups and
# nftables rules are inside its namespaces. When this process is gone, by whatever cause, the kernel kills and drops the rest.
# When one of its components ends, so does it: a half-dead cluster would only puzzle.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"
[[ $$ == 1 && $# == 3 ]] || die "it is 'cluster.sh up' that starts this"

state=$1 bin=$2 address=$3
pod_range=10.244.0.0/24 service_range=10.96.0.0/16 dns_address=10.96.0.10
pause_image=cluster.local/pause:1
declare -A pid_of=()
proxy_flags=()

main() {
  trap 'exit 143' TERM
  own_kernel_files
  own_folders
  own_network
  configure_containerd
  configure_kubelet
  fit_older_releases

  start containerd containerd
  start control-plane control-plane --dir "$state/control-plane" --address "$address" --port 6443 \
    < <(exec sleep infinity)
  await_component containerd test -S /run/containerd/containerd.sock
  await_component containerd ctr -n k8s.io images import --snapshotter native "$bin/../pause.tar"
  await_component control-plane grep -q ^ready "$log/control-plane.log"
  start kubelet kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig="$state/control-plane/pki/kubelet.kubeconfig" \
    --hostname-override=node --node-ip="$address"
  start kube-proxy kube-proxy --kubeconfig="$state/control-plane/pki/proxy.kubeconfig" --hostname-override=node \
    --proxy-mode=nftables --cluster-cidr="$pod_range" "${proxy_flags[@]}" \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0

  local ended name
  wait -n -p ended "${pid_of[@]}" || true
  for name in "${!pid_of[@]}"; do
    [[ ${pid_of[$name]} != "$ended" ]] || failed "$name"
  done
}

# --- what the node sees instead of the host's

# The old view of /sys is the host network namespace's and the host's cgroups.
own_kernel_files() {
  local mounts folder type options option keep
  mounts=$(cgroup_mounts)
  mount -t sysfs sysfs /sys
  if [[ $mounts == "/sys/fs/cgroup cgroup2 "* ]]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    for option in $(</sys/fs/cgroup/cgroup.controllers); do
      echo "+$option" >/sys/fs/cgroup/cgroup.subtree_control || say "the cgroup controller '$option' cannot be used here"
    done
  else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while read -r folder type options; do
      keep=''
      for option in ${options//,/ }; do
        case $option in
        rw | ro | xattr | clone_children | release_agent=* | nsdelegate | memory_*) ;;
        name=*) keep+=,none,$option ;;
        *) keep+=,$option ;;
        esac
      done
      mkdir -p "$folder"
      mount -t "$type" ${keep:+-o "${keep#,}"} cgroup "$folder"
    done <<<"$mounts"
  fi
}

# Bound in before /var, /run and /tmp are covered, which they may well lie under.
own_folders() {
  local file new=/mnt own=/run/acr-pull-webhook
  mount -t tmpfs -o mode=755 tmpfs "$new"
  mkdir -p "$new/acr-pull-webhook"/{build,state} "$new"/{etc,lock,netns}
  mount --bind "${bin%/*}" "$new/acr-pull-webhook/build"
  mount --bind "$state" "$new/acr-pull-webhook/state"

  mount -t tmpfs -o mode=755 tmpfs "$new/etc"
  cp -a /etc/. "$new/etc"
  # No name server is asked: none is in reach, and no query shall leave the machine.
  rm -rf "$new/etc"/{hosts,resolv.conf,containerd,cni,kubernetes}
  mkdir -p "$new/etc"/{containerd/certs.d,cni/net.d,kubernetes}
  : >"$new/etc/resolv.conf"
  printf '%s\n' "127.0.0.1 localhost" "$address node" >"$new/etc/hosts"
  mount --move "$new/etc" /etc

  mkdir -p "$state/var"/{lib,log,cache,tmp}
  ln -sfn /run "$state/var/run"
  mount --bind "$state/var" /var
  # The kubelet insists on writing these, and they are the whole machine's: it gets copies.
  for file in kernel/{panic,panic_on_oops,keys/root_maxkeys,keys/root_maxbytes} vm/{overcommit_memory,panic_on_oom}; do
    install -D -m 644 /dev/stdin "$new/sys/$file" <"/proc/sys/$file"
    mount --bind "$new/sys/$file" "/proc/sys/$file"
  done
  mount -t tmpfs -o mode=1777 tmpfs /tmp
  mount --no-mtab --move "$new" /run

  bin=$own/build/bin state=$own/state log=$own/state/log
  export PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root KUBECACHEDIR=/var/cache/kubectl
  cd /
}

# cluster.sh moves one end of a veth pair in here as eth0, so that the host reaches the node and nothing else does.
own_network() {
  hostname node
  echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
  await 20 test -e /sys/class/net/eth0 || die "the host gave this node no interface within 20 s"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  ip link set lo up
  ip address add "$address/30" dev eth0
  ip link set eth0 up
  # A Service address needs a route for kube-proxy's rules to see the packet. All else has none: traffic stays here.
  ip route add "$service_range" dev lo src "$address"
}

# --- components

configure_containerd() {
  cat >/etc/containerd/config.toml <<TOML
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  # In a container or virtual machine, root may lack the right to lower a score, and AppArmor's files may be absent.
  restrict_oom_score_adj = true
  disable_apparmor = true
  # overlayfs does not work on top of itself, as in a container.
  containerd.snapshotter = "native"
  cni.bin_dir = "/usr/lib/cni"
  cni.conf_dir = "/etc/cni/net.d"
  registry.config_path = "/etc/containerd/certs.d"
TOML
  cat >/etc/cni/net.d/10-pods.conflist <<JSON
{
  "cniVersion": "0.4.0", "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "$pod_range"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}
JSON
}

configure_kubelet() {
  cat >/etc/kubernetes/kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $state/control-plane/pki/ca.crt}
authorization: {mode: Webhook}
clusterDomain: cluster.local
# Nothing answers there unless you deploy it; without an address each Pod would get a warning event.
clusterDNS: [$dns_address]
resolvConf: /etc/resolv.conf
maxPods: 250
# The machine's own fullness is not this node's business.
evictionHard: {imagefs.available: "0%", nodefs.available: "0%", memory.available: "1Mi"}
imageGCHighThresholdPercent: 100
# Works on cgroup v1 and v2, with swap, and where some limits may not be set.
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
featureGates: {KubeletInUserNamespace: true}
YAML
}

# Before 1.31 kube-proxy's nftables mode had to be asked for twice, and the kubelet had nothing against cgroup v1.
fit_older_releases() {
  local minor
  minor=$(kubelet --version)
  minor=${minor#*v1.}
  ((${minor%%.*} < 31)) || return 0
  proxy_flags=(--feature-gates=NFTablesProxyMode=true)
  sed -i /^failCgroupV1:/d /etc/kubernetes/kubelet.yaml
}

# start NAME COMMAND...: the stdin is named, or bash would give a background command /dev/null.
start() {
  local name=$1
  shift
  "$@" <&0 >"$log/$name.log" 2>&1 &
  pid_of[$name]=$!
}

# await_component NAME COMMAND...: until COMMAND succeeds; the node ends when the component does first.
await_component() {
  local name=$1
  shift
  until "$@" >/dev/null 2>&1; do
    kill -0 "${pid_of[$name]}" 2>/dev/null || failed "$name"
    sleep 0.1
  done
}

failed() {
  say "--- last lines of $1.log"
  tail -n 20 "$log/$1.log" >&2
  die "$1 ended, so the node does"
}

main; exit
