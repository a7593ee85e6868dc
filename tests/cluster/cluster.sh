#!/usr/bin/env bash
# A one-node Kubernetes cluster in namespaces of its own. Needs root. README.md says how it works.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

usage="usage: cluster.sh COMMAND
  up              starts the cluster if it is not running, waits until Pods run and reach Services,
                  and prints 'export KUBECONFIG=...'
  down            stops it and removes all that it made, in whatever state it is
  status          says whether it is running (status 0), broken (1) or down (3)
  exec COMMAND... runs COMMAND on the node, with your stdin
  load FILE...    imports images (docker-archive or oci-archive) into the node's containerd
  pid             prints the process id that the node's PID 1 has on this machine
  kubeconfig      prints the path of the administrator's kubeconfig
ACR_PULL_CLUSTER_NAME=default names the cluster: another name is another cluster beside it."

name=${ACR_PULL_CLUSTER_NAME:-default}
[[ $name =~ ^[a-z0-9][a-z0-9-]{0,30}$ ]] ||
  die "ACR_PULL_CLUSTER_NAME is '$name', but must be of at most 31 lowercase letters, digits and hyphens"
state=$(cache_dir)/cluster/$name
kubeconfig=$state/kubeconfig
group=acr-pull-webhook-$name
# One of the 16384 networks of four addresses in 10.213.0.0/16, the same for the same name.
number=$(($(printf %s "$name" | cksum | cut -d ' ' -f 1) % 16384))
network=10.213.$((number / 64)).$((number % 64 * 4))
host_address=${network%.*}.$((${network##*.} + 1))
node_address=${network%.*}.$((${network##*.} + 2))
link=acrpull$(printf %04x "$number")

main() {
  (($#)) || { say "$usage" && exit 2; }
  local command=$1
  shift
  case $command in
  up | down | status | pid | kubeconfig) (($# == 0)) || die "'$command' takes no arguments" ;;
  exec | load) (($#)) || die "'$command' needs arguments; see: cluster.sh help" ;;
  help | -h | --help) echo "$usage" && exit ;;
  *) say "$usage" && exit 2 ;;
  esac
  ((EUID == 0)) || die "a cluster with a node needs root: run this as root (the control plane alone does not need it)"
  "command_$command" "$@"
}

# --- commands

command_up() {
  local bin trouble
  lock
  install_packages
  bin=$("$here/build.sh")
  if trouble=$(whats_wrong "$bin"); then
    say "cluster '$name' is $trouble"
    if [[ $trouble != down ]]; then
      say "making it anew"
      remove
    fi
    start "$bin"
  fi
  printf 'export KUBECONFIG=%s\n' "$kubeconfig"
}

command_down() {
  lock
  remove
}

command_status() {
  local trouble
  if trouble=$(whats_wrong ""); then
    echo "$trouble"
    [[ $trouble == down ]] && exit 3
    exit 1
  fi
  echo "running at $node_address, kubeconfig $kubeconfig"
}

command_kubeconfig() {
  [[ -f $kubeconfig ]] || die "cluster '$name' is not up: run 'cluster.sh up' first"
  echo "$kubeconfig"
}

command_pid() {
  node_pid || die "cluster '$name' is not up: run 'cluster.sh up' first"
}

command_exec() {
  local pid
  pid=$(command_pid)
  exec nsenter --target "$pid" --mount --net --pid --uts --ipc --cgroup -- \
    env -i TERM="${TERM:-dumb}" HOME=/root KUBECONFIG=/run/acr-pull-webhook/state/kubeconfig KUBECACHEDIR=/var/cache/kubectl \
    PATH=/run/acr-pull-webhook/build/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# The kubelet looks images up by their full name, which an archive need not give.
command_load() {
  local file line image full found
  for file; do
    [[ -r $file ]] || die "there is no readable file $file to load"
    found=''
    line=$(node ctr -n k8s.io images import --snapshotter native - <"$file") || die "containerd could not import $file"
    while read -r _ image _; do
      [[ $image != import-* ]] || die "$file names no image: save it with a name and tag"
      full=$(full_image_name "$image")
      [[ $full == "$image" ]] || node ctr -n k8s.io images tag --force "$image" "$full" >/dev/null
      # containerd labels an image once the kubelet's side of it knows it.
      await 20 image_is_known "$full" || die "containerd has not shown $full to the kubelet within 20 s"
      echo "loaded $full"
      found=yes
    done < <(grep ^unpacking <<<"$line")
    [[ -n $found ]] || die "no image was found in $file: it must be a docker-archive or an oci-archive"
  done
}

# --- state

lock() {
  mkdir -p "${state%/*}"
  exec 9>"$state.lock"
  flock --nonblock 9 || { say "waiting for another cluster.sh on '$name' ..." && flock 9; }
}

# whats_wrong BIN: prints what keeps the cluster from being a healthy one of this build, and succeeds; fails if nothing does.
whats_wrong() {
  if ! node_pid >/dev/null; then
    if [[ -n $(cgroups) || -d $state ]] || ip link show "$link" &>/dev/null; then
      echo "broken (its node is gone, but not all that belongs to it)"
    else
      echo down
    fi
  elif [[ ! -f $kubeconfig ]]; then
    echo "broken (it has not come up completely)"
  elif [[ -n $1 && $(<"$state/build") != "$1" ]]; then
    echo "of another build"
  elif ! kubectl get --raw=/readyz --request-timeout=5s &>/dev/null; then
    echo "broken (its API server is not ready)"
  elif ! node_is_ready; then
    echo "broken (its node is not ready)"
  else
    return 1
  fi
}

cgroups() {
  local folder
  while read -r folder _; do
    [[ ! -d $folder/$group ]] || echo "$folder/$group"
  done < <(cgroup_mounts)
}

# Every process of the cluster is in its cgroups, whoever its parent is.
processes() {
  local folder
  for folder in $(cgroups); do
    find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done | sort -un
}

# The process that is PID 1 one level down.
node_pid() {
  local pid
  for pid in $(processes); do
    if awk '$1 == "NSpid:" && NF == 3 && $3 == 1 { found = 1 } END { exit !found }' "/proc/$pid/status" 2>/dev/null; then
      echo "$pid"
      return
    fi
  done
  return 1
}

# In a subshell, since exec replaces it.
node() (
  command_exec "$@"
)

kubectl() {
  "$(<"$state/build")/kubectl" --kubeconfig="$kubeconfig" "$@"
}

node_is_ready() {
  [[ $(kubectl get node node --request-timeout=5s \
    -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) == True ]]
}

full_image_name() {
  local first=${1%%/*}
  case $1 in
  */*) [[ $first == *[.:]* || $first == localhost ]] && echo "$1" || echo "docker.io/$1" ;;
  *) echo "docker.io/library/$1" ;;
  esac
}

image_is_known() {
  [[ $(node ctr -n k8s.io images ls "name==$1") == *io.cri-containerd.image=managed* ]]
}

# --- up

install_packages() {
  local missing=()
  command -v containerd >/dev/null || missing+=(containerd)
  command -v runc >/dev/null || missing+=(runc)
  [[ -x /usr/lib/cni/ptp ]] || missing+=(containernetworking-plugins)
  command -v nft >/dev/null || missing+=(nftables)
  command -v ip >/dev/null || missing+=(iproute2)
  ((${#missing[@]} == 0)) || "$here/packages.sh" "${missing[@]}"
}

start() {
  local bin=$1 started=$SECONDS
  addresses_are_free ||
    die "the addresses $network/30 are in use on this machine: give the cluster another name by ACR_PULL_CLUSTER_NAME"
  say "starting cluster '$name' ..."
  (umask 077 && mkdir -p "$state/log")
  echo "$bin" >"$state/build"
  make_cgroups
  launch "$bin"
  await 10 node_pid >/dev/null || gave_up "its first process did not start within 10 s"
  ip link add "$link" type veth peer name eth0 netns "$(node_pid)"
  ip address add "$host_address/30" dev "$link"
  ip link set "$link" up

  await_node 60 test -f "$state/control-plane/kubeconfig"
  await_node 60 grep -q ^ready "$state/log/control-plane.log"
  install -m 600 "$state/control-plane/kubeconfig" "$kubeconfig.new" || gave_up "its node ended"
  mv "$kubeconfig.new" "$kubeconfig"
  say "control plane answers after $((SECONDS - started)) s"
  await_node 60 node_is_ready
  say "node is Ready after $((SECONDS - started)) s"
  probe
  say "a Pod ran and reached a Service after $((SECONDS - started)) s: the cluster is up"
}

addresses_are_free() {
  local uses
  uses=$(
    ip -4 -o address show to "$network/30"
    ip -4 route show root "$network/30"
    ip -4 route show match "$host_address" | grep -v '^default'
  ) || true
  [[ -z $uses ]]
}

make_cgroups() {
  local folder type file
  while read -r folder type _; do
    [[ $type == cgroup2 ]] && delegate "$folder"
    mkdir -p "$folder/$group"
    # On cgroup v1 a new cpuset is empty, and takes no process until filled.
    if [[ $type == cgroup && -f $folder/cpuset.cpus ]]; then
      for file in cpuset.cpus cpuset.mems; do
        cat "$folder/$file" >"$folder/$group/$file"
      done
      echo 1 >"$folder/$group/cgroup.clone_children"
    fi
    mkdir -p "$folder/$group/node"
  done < <(cgroup_mounts)
}

# On cgroup v2 a controller must be handed down from the root; those handed down for this cluster are noted to be taken back.
delegate() {
  local controller
  for controller in cpu cpuset memory pids; do
    if grep -qw "$controller" "$1/cgroup.controllers" && ! grep -qw "$controller" "$1/cgroup.subtree_control"; then
      echo "+$controller" >"$1/cgroup.subtree_control" && echo "$controller" >>"$state/delegated"
    fi
  done
}

# The process enters the cluster's cgroups, makes them the root of what it sees, steps into a leaf of them (on v2 only
# leaves hold processes), and becomes the parent of the node. Either one's death is the end of both.
launch() {
  local bin=$1 folder leaves=()
  for folder in $(cgroups); do
    leaves+=("$folder/node")
  done
  (
    for folder in $(cgroups); do
      echo "$BASHPID" >"$folder/cgroup.procs"
    done
    # shellcheck disable=SC2016 # for the inner shell
    # None of the caller's environment: a proxy of its would be asked for images.
    exec setsid env -i PATH="$PATH" unshare --cgroup -- bash -c '
      while [[ $1 != -- ]]; do echo $$ >"$1/cgroup.procs"; shift; done
      shift
      exec "$@"' bash "${leaves[@]}" -- \
      unshare --pid --fork --kill-child --mount --propagation private --mount-proc --net --uts --ipc -- \
      "$here/node.sh" "$state" "$bin" "$node_address"
  ) </dev/null >"$state/log/node.log" 2>&1 9>&- &
}

# await_node SECONDS COMMAND...: until COMMAND succeeds; ends if the node does.
await_node() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    node_pid >/dev/null || gave_up "its node ended"
    ((SECONDS < deadline)) || gave_up "waited in vain for: $*"
    sleep 0.1
  done
}

gave_up() {
  local log
  for log in kubelet node; do
    [[ ! -s $state/log/$log.log ]] || { say "--- last lines of $log.log" && tail -n 20 "$state/log/$log.log" >&2; }
  done
  die "cluster '$name' did not come up: $1. Logs are in $state/log; 'cluster.sh down' removes it"
}

# A Ready node proves little. This Pod proves its image, its network, and that Service traffic reaches its target.
probe() {
  kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: cluster-probe, namespace: default}
spec:
  restartPolicy: Never
  containers: [{name: probe, image: "cluster.local/pause:1", imagePullPolicy: Never, args: ["10.96.0.1:443"]}]
YAML
  await_node 60 probe_is_over
  [[ $(probe_phase) == Succeeded ]] ||
    gave_up "a Pod could not reach the Service 'kubernetes': $(kubectl logs cluster-probe 2>&1)"
  kubectl delete pod cluster-probe --wait=false >/dev/null
}

probe_phase() {
  kubectl get pod cluster-probe -o 'jsonpath={.status.phase}'
}

probe_is_over() {
  [[ $(probe_phase) == @(Succeeded|Failed) ]]
}

# --- down

remove() {
  local pid left
  if pid=$(node_pid); then
    kill_sharing_network "$pid"
  fi
  await 30 kill_processes || die "these processes of cluster '$name' cannot be killed: $(processes | xargs)"
  # The kernel removes it with the namespace, but in its own time.
  await 5 link_is_gone || ip link delete "$link" 2>/dev/null || true
  await 10 remove_cgroups || true
  undelegate
  rm -rf --one-file-system "$state"

  left=$(
    processes
    cgroups
    ip -o link show "$link" 2>/dev/null
    grep -F " $state" /proc/self/mountinfo
    ls -d "$state" 2>/dev/null
  ) || true
  [[ -z $left ]] || die "something of cluster '$name' is left: $left"
}

# Strangers that entered the node's network would keep it alive.
kill_sharing_network() {
  local network pid
  network=$(readlink "/proc/$1/ns/net") || return 0
  for pid in $(find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/net' -lname "$network" 2>/dev/null | cut -d / -f 3); do
    kill -KILL "$pid" 2>/dev/null || true
  done
}

kill_processes() {
  local pids
  mapfile -t pids < <(processes)
  ((${#pids[@]})) || return 0
  kill -KILL "${pids[@]}" 2>/dev/null || true
  return 1
}

link_is_gone() {
  ! ip link show "$link" &>/dev/null
}

remove_cgroups() {
  local folder
  for folder in $(cgroups); do
    find "$folder" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
  [[ -z $(cgroups) ]]
}

undelegate() {
  local controller
  [[ -f $state/delegated ]] || return 0
  while read -r controller; do
    # Refused when something else has come to use it: then it is no longer ours.
    echo "-$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
  done <"$state/delegated"
}

main "$@"; exit
