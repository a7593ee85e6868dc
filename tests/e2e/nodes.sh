# Commands on the nodes of the cluster. Sourced, never run.
# shellcheck shell=bash disable=SC2154 # the variables are those of cluster.sh and emulator.sh

# nodes: the name of each node, one per line.
nodes() {
  kube get nodes -o 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}'
}

# node_exec NODE COMMAND...: runs COMMAND on a node.
node_exec() {
  local prefix
  case ${NODE_EXEC:+given}$CLUSTER in
  local) prefix=("$local_cluster" exec) ;;
  kind) prefix=("$(kind_provider)" exec --interactive) ;;
  given*) read -ra prefix <<<"$NODE_EXEC" ;;
  *) die "the emulator needs a file on each node: set NODE_EXEC to a command that is given a node's name and a command" ;;
  esac
  "${prefix[@]}" "$@"
}

# teach_nodes CA: each node's containerd finds the emulated registries at the emulator, and trusts it.
teach_nodes() {
  local ca node
  ca=$(cat "$1")
  while read -r node; do
    # shellcheck disable=SC2016 # expanded on the node
    # /etc/hosts may be a mount of one file, which can be written but not replaced.
    node_exec "$node" sh -ec '
      address=$1 ca=$2
      shift 2
      others=$(grep -v "# azure-emulator$" /etc/hosts)
      printf "%s\n%s %s # azure-emulator\n" "$others" "$address" "$*" >/etc/hosts
      for host; do
        folder=/etc/containerd/certs.d/$host
        mkdir -p "$folder"
        printf "%s\n" "$ca" >"$folder/ca.crt"
        printf "server = \"https://%s\"\n[host.\"https://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = \"%s/ca.crt\"\n" \
          "$host" "$host" "$folder" >"$folder/hosts.toml"
      done' sh "$emulator_address" "$ca" "${emulated_registries[@]}" </dev/null
  done <<<"$(nodes)"
}
