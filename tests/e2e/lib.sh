# Shell functions shared by the scripts that deploy and try the webhook on a cluster. Sourced, never run.
# shellcheck shell=bash
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../cluster/lib.sh"
# shellcheck source=tests/e2e/cluster.sh
source "$root/tests/e2e/cluster.sh"

# On the namespace of a webhook that the end-to-end tests deployed.
# shellcheck disable=SC2034 # for the scripts that source this file
e2e_label=acr-pull.dev/end-to-end-tests=true

# state_dir: prints the folder of what is generated for one deployment, and may be looked at afterwards. That of a local
# cluster is removed with the cluster.
state_dir() {
  local folder
  folder=$(cache_dir)/deploy/$(printf '%s' "${KUBECONFIG:?}" | sha256sum | cut -c 1-12)
  [[ $CLUSTER != local ]] || folder=${KUBECONFIG%/*}/deploy
  mkdir -p "$folder"
  chmod 700 "$folder"
  printf '%s\n' "$folder"
}

# load_image REFERENCE ARCHIVE: puts an image where the cluster's nodes find it, and prints the name they find it by.
load_image() {
  local reference=$1 archive=$2
  case $CLUSTER in
  local) "$local_cluster" load "$archive" >&2 ;;
  kind)
    KIND_EXPERIMENTAL_PROVIDER=$(kind_provider) "$("$local_cluster" program)" load image-archive "$archive" \
      --name "$(provider_id | cut -d / -f 4)" >&2
    ;;
  other)
    [[ -n ${IMAGE_REPOSITORY:-} ]] ||
      die "this is not a kind cluster: set IMAGE_REPOSITORY to a folder of a registry that you can push to and its nodes can
pull from, such as contoso.azurecr.io/platform"
    reference=$IMAGE_REPOSITORY/${reference##*/}
    need skopeo
    progress "pushing $reference" skopeo --insecure-policy copy "docker-archive:$archive" "docker://$reference"
    ;;
  esac
  printf '%s\n' "$reference"
}

# image_in_cluster NAME: builds one of deploy/image.sh's images, loads it, and prints its name in the cluster.
image_in_cluster() {
  local image
  image=$("$root/deploy/image.sh" "$1")
  load_image "${image% *}" "${image#* }"
}

# kustomize_image NAME REFERENCE: an entry of kustomize's `images`, for a reference with a tag, a digest or neither.
kustomize_image() {
  printf '  - name: %s\n' "$1"
  case ${2##*/} in
  *@*) printf '    newName: %s\n    digest: %s\n' "${2%@*}" "${2##*@}" ;;
  *:*) printf '    newName: %s\n    newTag: "%s"\n' "${2%:*}" "${2##*:}" ;;
  *) printf '    newName: %s\n' "$2" ;;
  esac
}

# apply FLAG...: kubectl apply without its standard output, which is long and reports Secrets as changed that are not.
apply() {
  kube apply "$@" >/dev/null
}

# relative_to FOLDER PATH: prints PATH relative to FOLDER, because kustomize refuses absolute paths.
relative_to() {
  realpath --relative-to="$(realpath "$1")" "$2"
}

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds; ends with a sentence that names WHAT if it does not in time.
wait_for() {
  local seconds=$1 what=$2
  shift 2
  await "$seconds" "$@" || die "gave up after $seconds s waiting until $what"
}

# rolled_out NAMESPACE DEPLOYMENT: waits until every replica is the new one and ready, or shows what is in the way.
rolled_out() {
  local namespace=$1 deployment=$2
  kube --namespace "$namespace" rollout status "deployment/$deployment" --timeout=120s >/dev/null || {
    kube --namespace "$namespace" get pods -o wide >&2
    kube --namespace "$namespace" get events --sort-by=.lastTimestamp | tail -n 15 >&2
    kube --namespace "$namespace" logs --prefix --tail=15 "deployment/$deployment" --all-containers >&2 || true
    die "deployment $namespace/$deployment did not become ready; its Pods, events and last log lines are above"
  }
  say "$deployment is up"
}
