# Shell functions shared by the scripts of this folder. Sourced, never run.
# shellcheck shell=bash
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../cluster/lib.sh"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The images, containers and networks of this project's podman, apart from the user's own. All podmans of a machine share
# the state of networks by their names: each cache has a name of its own.
storage=$(cache_dir)/kind/podman
network=acr-pull-$(cksum <<<"$storage" | cut -d ' ' -f 1)
runtime=/run/$network

# kind_program: prints the path of kind, which is built from go.mod: a node image fits one release of kind.
kind_program() {
  local folder
  folder=$(cache_dir)/kind/program-$(content_hash "$here"/go.{mod,sum})
  build_once "$folder" build_kind
  printf '%s\n' "$folder/kind"
}
build_kind() {
  need_go "$here" kind
  progress "building kind" go_build "$1/kind" "$here" sigs.k8s.io/kind -ldflags "-s -w"
}

# kind_sources: prints the folder with the sources of kind.
kind_sources() {
  (cd "$here" && go mod download sigs.k8s.io/kind && go list -m -f '{{.Dir}}' sigs.k8s.io/kind)
}

# Of the node image of v1.30.13 that kind 0.29 published; later releases of kind publish newer ones only.
oldest_digest=sha256:397209b3d947d154f6641f2d0ce8d473732bd91c87d9575ade99049aa33cd648

# published_image: prints the name of the node image that kind publishes for the release of KUBERNETES.
published_image() {
  case ${KUBERNETES:-newest} in
  newest) sed -n 's,^const Image = "\(.*\)"$,docker.io/\1,p' "$(kind_sources)/pkg/apis/config/defaults/image.go" ;;
  oldest) echo "docker.io/kindest/node:v1.30.13@$oldest_digest" ;;
  *) die "KUBERNETES is newest or oldest, not '$KUBERNETES'" ;;
  esac
}

# own_podman: makes podman, and kind with it, use settings and storage of this project and nothing of /etc/containers.
own_podman() {
  local processes
  export KIND_EXPERIMENTAL_PROVIDER=podman KIND_EXPERIMENTAL_PODMAN_NETWORK=$network
  export CONTAINERS_CONF=$storage/containers.conf CONTAINERS_STORAGE_CONF=$storage/storage.conf
  mkdir -p "$storage/networks" "$runtime"
  # podman limits itself to 32768 processes, and a container cannot have higher limits than podman and this shell have.
  processes=$(ulimit -Hu)
  [[ $processes != unlimited ]] && ((processes < 32768)) || processes=32768
  replace_file "$CONTAINERS_CONF" <<TOML
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=$processes:$processes"]
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "$runtime/libpod"
[network]
network_backend = "netavark"
network_config_dir = "$storage/networks"
TOML
  replace_file "$CONTAINERS_STORAGE_CONF" <<TOML
[storage]
driver = "overlay"
graphroot = "$storage/storage"
runroot = "$runtime/storage"
TOML
}

# replace_file FILE: writes stdin to FILE in one step, since a podman for another cluster may read it at this moment.
replace_file() {
  cat >"$1.$$" && mv "$1.$$" "$1"
}

# need_podman: installs podman, and the programs that it starts.
need_podman() {
  local missing=() tool
  for tool in podman runc iptables; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  for tool in netavark aardvark-dns; do
    compgen -G "/usr/lib*/podman/$tool" >/dev/null || missing+=("$tool")
  done
  ((${#missing[@]} == 0)) || "$root/deploy/packages.sh" "${missing[@]}"
}
