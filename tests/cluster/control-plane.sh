#!/usr/bin/env bash
# control-plane.sh [--bin FOLDER] [--address ADDRESS --port PORT] DIR
#
# A Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler) without a node, in the
# foreground, needing no root: on 127.0.0.1 and a free port, or, for a cluster with a node, on the node's ADDRESS.
# DIR must be new or empty. When the API server answers and Pods can be created there, one line is printed on stdout:
#     ready kubeconfig=DIR/kubeconfig
# DIR/kubeconfig is the administrator's; DIR/bin/kubectl is a kubectl of the same version; DIR/log holds the logs.
# It ends when its stdin does (so with its caller, however that dies), on SIGTERM or SIGINT, or when a component dies.
# A line on stdin, 'stop kube-apiserver' or 'start kube-apiserver' (on its port), is for tests of those who must bear that.
# No child outlives it, not even a kill -9. It then removes what it wrote into DIR, but for the logs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

usage="usage: control-plane.sh [--bin FOLDER] [--address ADDRESS --port PORT] DIR"
service_range=10.96.0.0/16 service_address=10.96.0.1
bin='' address='' port=''
declare -A pid_of=() token_of=()

main() {
  while (($# > 1)); do
    case $1 in
    --bin) bin=$2 ;;
    --address) address=$2 ;;
    --port) port=$2 ;;
    *) die "$usage" ;;
    esac
    shift 2
  done
  [[ $# == 1 && -n $1 && $1 != -* && ${address:+set} == "${port:+set}" ]] || die "$usage"
  local command
  for command in openssl setpriv; do
    command -v "$command" >/dev/null || die "'$command' is missing: install the package $command (setpriv is in util-linux)"
  done
  [[ -n $bin ]] || bin=$("$here/build.sh")
  # The API server would send its webhook and kubelet calls through the caller's proxy.
  unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy

  umask 077
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  [[ -z $(ls -A "$dir") ]] || die "$dir is not empty: name a folder of its own for each control plane"
  cd "$dir"
  close_inherited
  exec 3<&0 </dev/null
  trap stop EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM

  mkdir etcd log pki
  ln -s "$bin" bin
  start_etcd
  write_keys
  start_api_server
  start_controllers
  await_default_service_account
  printf 'ready kubeconfig=%s/kubeconfig\n' "$dir"
  watch
}

# A caller that starts several may pass one the pipe that is another's stdin, which then would never end.
close_inherited() {
  local descriptor
  for descriptor in "/proc/$$/fd"/*; do
    descriptor=${descriptor##*/}
    # Bash reads this script from 255.
    ((descriptor <= 2 || descriptor == 255)) || exec {descriptor}>&-
  done
}

# start NAME FLAG...: the kernel kills the component when this shell is gone.
start() {
  local name=$1
  shift
  setpriv --pdeathsig KILL -- "$bin/$name" "$@" >"log/$name.log" 2>&1 3<&- &
  pid_of[$name]=$!
}

running() {
  kill -0 "${pid_of[$1]}" 2>/dev/null
}

# failed NAME: ends, saying why the component did.
failed() {
  say "--- last lines of $dir/log/$1.log"
  tail -n 20 "log/$1.log" >&2
  die "$1 ended; its last log lines are above"
}

# Sockets instead of ports: nothing to collide with, and closed to the machine's other users.
# The paths are relative since a socket's may have no more than 107 bytes.
# The :0 is part of their names: etcd before 3.6 takes none without a port.
start_etcd() {
  start etcd --data-dir=etcd/data --unsafe-no-fsync --log-level=warn \
    --listen-client-urls=unix://etcd.sock:0 --advertise-client-urls=unix://etcd.sock:0 \
    --listen-peer-urls=unix://peer.sock:0 --initial-advertise-peer-urls=unix://peer.sock:0 \
    --initial-cluster=default=unix://peer.sock:0
}

write_keys() {
  local name host=${address:-127.0.0.1}
  certificate ca "/CN=test cluster" basicConstraints=critical,CA:TRUE keyUsage=critical,keyCertSign,digitalSignature
  certificate server "/CN=kube-apiserver" extendedKeyUsage=serverAuth \
    "subjectAltName=IP:127.0.0.1,IP:$service_address,IP:$host,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  certificate kubelet-client "/O=system:masters/CN=kube-apiserver" extendedKeyUsage=clientAuth
  # RSA, since Entra, which such tokens are meant for, accepts no other.
  openssl genrsa -out pki/service-account.key 2048 2>/dev/null

  for name in admin controller-manager scheduler kubelet proxy; do
    token_of[$name]=$(od -A n -N 24 -t x1 /dev/urandom | tr -d ' \n')
  done
  cat >pki/tokens.csv <<CSV
${token_of[admin]},admin,admin,"system:masters"
${token_of[controller-manager]},system:kube-controller-manager,controller-manager
${token_of[scheduler]},system:kube-scheduler,scheduler
${token_of[kubelet]},system:node:node,kubelet,"system:nodes"
${token_of[proxy]},system:kube-proxy,proxy
CSV
}

# certificate NAME SUBJECT EXTENSION...: pki/NAME.key and pki/NAME.crt, signed by pki/ca.key once there is one.
certificate() {
  local name=$1 subject=$2 extension signer=()
  shift 2
  [[ ! -f pki/ca.crt ]] || signer=(-CA pki/ca.crt -CAkey pki/ca.key)
  for extension; do
    signer+=(-addext "$extension")
  done
  openssl req -config <(printf '[req]\ndistinguished_name = dn\n[dn]\n') -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
    -nodes -days 3650 -subj "$subject" -keyout "pki/$name.key" -out "pki/$name.crt" "${signer[@]}" 2>"log/openssl.log" ||
    { cat log/openssl.log >&2 && die "openssl could not make the certificate '$name'; it said the above"; }
}

# A port that is free now may be taken a moment later: then another one is tried.
start_api_server() {
  local attempt
  until [[ -S etcd.sock:0 ]]; do
    running etcd || failed etcd
    sleep 0.02
  done
  for attempt in 1 2 3 4 5; do
    api_port=${port:-$(free_port)}
    write_kubeconfig kubeconfig admin
    run_api_server
    while running kube-apiserver; do
      running etcd || failed etcd
      # kubectl costs more than a look at the port.
      if listening "$api_port" && bin/kubectl --kubeconfig=kubeconfig get --raw=/readyz &>/dev/null; then
        return
      fi
      sleep 0.05
    done
    if [[ -n $port ]] || ! grep -q "address already in use" log/kube-apiserver.log; then
      failed kube-apiserver
    fi
    say "port $api_port was taken meanwhile, trying another ($attempt of 5)"
  done
  failed kube-apiserver
}

free_port() {
  local candidate
  # Below the range that the kernel gives to outgoing connections.
  while candidate=$((20000 + RANDOM % 12000)); do
    listening "$candidate" || break
  done
  echo "$candidate"
}

listening() {
  (exec 4<>"/dev/tcp/${address:-127.0.0.1}/$1") 2>/dev/null
}

run_api_server() {
  local where=(--bind-address=127.0.0.1 --endpoint-reconciler-type=none)
  # An address that Pods can reach is published as the Service 'kubernetes'; loopback must not be.
  [[ -z $address ]] || where=(--bind-address=0.0.0.0 --advertise-address="$address")
  start kube-apiserver "${where[@]}" --secure-port="$api_port" \
    --etcd-servers=unix://etcd.sock:0 \
    --tls-cert-file=pki/server.crt --tls-private-key-file=pki/server.key --client-ca-file=pki/ca.crt \
    --token-auth-file=pki/tokens.csv --authorization-mode=Node,RBAC --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-signing-key-file=pki/service-account.key --service-account-key-file=pki/service-account.key \
    --service-cluster-ip-range="$service_range" \
    --kubelet-client-certificate=pki/kubelet-client.crt --kubelet-client-key=pki/kubelet-client.key \
    --kubelet-preferred-address-types=InternalIP
  # For who wants to stop it for a while.
  echo "${pid_of[kube-apiserver]}" >kube-apiserver.pid
}

start_controllers() {
  local name
  for name in controller-manager scheduler kubelet proxy; do
    write_kubeconfig "pki/$name.kubeconfig" "$name"
  done
  start kube-controller-manager --kubeconfig=pki/controller-manager.kubeconfig --secure-port=0 --leader-elect=false \
    --use-service-account-credentials=true --kube-api-qps=1000 --kube-api-burst=1000 --service-account-private-key-file=pki/service-account.key \
    --root-ca-file=pki/ca.crt --cluster-signing-cert-file=pki/ca.crt --cluster-signing-key-file=pki/ca.key
  start kube-scheduler --kubeconfig=pki/scheduler.kubeconfig --secure-port=0 --leader-elect=false
}

write_kubeconfig() {
  cat >"$1" <<YAML
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: $2}}]
clusters:
- name: test
  cluster:
    server: https://${address:-127.0.0.1}:$api_port
    certificate-authority-data: $(base64 -w 0 pki/ca.crt)
users: [{name: $2, user: {token: ${token_of[$2]}}}]
YAML
}

# No Pod can be created in a namespace that the controller manager has not given its service account yet.
await_default_service_account() {
  until bin/kubectl --kubeconfig=kubeconfig get serviceaccount default &>/dev/null; do
    local name
    for name in "${!pid_of[@]}"; do
      running "$name" || failed "$name"
    done
    sleep 0.05
  done
}

# Waits for the end of stdin or of a component, and does what lines of stdin say. Not signals: one that comes while the last
# is served, or just before a wait, would be lost.
watch() {
  local ended name order
  while
    # read takes no byte beyond its line.
    # shellcheck disable=SC2016 # expands in the shell that is started
    setpriv --pdeathsig KILL -- bash -c 'read -r line && echo "$line"' <&3 >order &
    order=$!
    # Without the list, a process substitution of long ago may count as ended now.
    wait -n -p ended "${pid_of[@]}" "$order" || true
    for name in "${!pid_of[@]}"; do
      [[ ${pid_of[$name]} != "$ended" ]] || failed "$name"
    done
    [[ -s order ]]
  do
    case $(<order) in
    "stop kube-apiserver") [[ -z ${pid_of[kube-apiserver]:-} ]] || stop_api_server ;;
    "start kube-apiserver") [[ -n ${pid_of[kube-apiserver]:-} ]] || run_api_server ;;
    *) die "'$(<order)' on stdin is none of: stop kube-apiserver, start kube-apiserver" ;;
    esac
  done
  say "control plane: stdin ended, stopping"
}

stop_api_server() {
  kill -KILL "${pid_of[kube-apiserver]}"
  # The shell would report it as killed.
  wait "${pid_of[kube-apiserver]}" 2>/dev/null || true
  unset 'pid_of[kube-apiserver]'
}

# Killed outright: nothing in here is worth an orderly end.
stop() {
  trap '' INT TERM
  local children
  mapfile -t children < <(jobs -p)
  # The shell would report each one as killed.
  {
    ((${#children[@]} == 0)) || kill -KILL "${children[@]}" || true
    wait
  } 2>/dev/null
  rm -rf etcd pki kubeconfig kube-apiserver.pid order bin {etcd,peer}.sock:0
}

# All is read before it runs: the file may change meanwhile.
main "$@"; exit
