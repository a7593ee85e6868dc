#!/usr/bin/env bash
# release.sh: the steps of .github/workflows/release.yml that do not need credentials, so that they can also be run
# locally.
#
#   release.sh version TAG             checks that TAG (v1.2.3) is the version everywhere in the repository; prints 1.2.3
#   release.sh notes VERSION           prints the section of that version in CHANGELOG.md
#   release.sh image PROGRAMS FOLDER   builds an image for all architectures, as an OCI layout in FOLDER, tagged with the
#                                      version. PROGRAMS contains ARCHITECTURE/acr-pull-webhook for each (deploy/binary.sh)
#   release.sh chart REGISTRY FOLDER   packages the chart in FOLDER, with REGISTRY/acr-pull-webhook as the default image
#
# SOURCE_DATE_EPOCH is the timestamp of image and chart; default: the time of the last commit. The same programs and the
# same version of buildah then give the same image digest.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

architectures=(amd64 arm64)
name=acr-pull-webhook
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# value_of FILE KEY: the value of the first line "KEY: value" or "KEY = value".
value_of() {
  sed -nE "s/^$2 *[:=] *\"?([^\"]*)\"?\$/\1/p" "$root/$1" | head -n 1
}

version() {
  local version=${1#v}
  [[ $1 == v* ]] || die "the tag $1 is not of the form v1.2.3"
  [[ $(value_of Cargo.toml version) == "$version" ]] || die "the tag is $1, but the version in Cargo.toml is $(value_of Cargo.toml version)"
  for key in version appVersion; do
    [[ $(value_of deploy/chart/Chart.yaml "$key") == "$version" ]] ||
      die "the tag is $1, but $key in deploy/chart/Chart.yaml is $(value_of deploy/chart/Chart.yaml "$key")"
  done
  [[ -n $(notes "$version") ]] || die "CHANGELOG.md does not have a section for $version: rename [Unreleased] to [$version] - $(date +%F)"
  printf '%s\n' "$version"
}

notes() {
  awk -v heading="## [$1]" 'index($0, "## ") == 1 { found = index($0, heading) == 1; next } found' "$root/CHANGELOG.md" |
    sed -e '/./,$!d'
}

release_timestamp() {
  printf '%s\n' "${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}"
}

# vfs and chroot work without root, and the build does not run any program.
run_buildah() {
  local command=$1
  shift
  buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$command" "$@"
}

image() {
  local programs=$1 folder architecture version epoch
  folder=$(realpath -m "$2")
  version=$(value_of Cargo.toml version)
  epoch=$(release_timestamp)
  command -v buildah >/dev/null || need buildah
  [[ ! -e $folder ]] || die "$folder already exists"
  for architecture in "${architectures[@]}"; do
    # Sets the mode, because artifacts of a workflow lose it, and leaves other files out.
    install -D -m 755 "$programs/$architecture/$name" "$work/context/$architecture/$name"
  done
  # In a fixed order, because the order is part of the digest; without the label that contains the version of buildah.
  for architecture in "${architectures[@]}"; do
    run_buildah bud --quiet --isolation chroot --format oci --identity-label=false --timestamp "$epoch" \
      --platform "linux/$architecture" --build-arg "VERSION=$version" --manifest "$name" --file "$root/Containerfile" "$work/context" >&2
  done
  run_buildah manifest push --quiet --all --format oci "$name" "oci:$folder:$version" >&2
}

chart() {
  local registry=$1 folder helm
  local built="Where to pull the image from: .* for itself[.]"
  local released="The released image. A copy of it must also be pullable without a pull secret of the webhook."
  folder=$(realpath -m "$2")
  helm=$(command -v helm || "$root/tests/chart/build.sh")
  cp -r "$root/deploy/chart" "$work/$name"
  grep -q "^  repository: $name\$" "$work/$name/values.yaml" || die "values.yaml has no line '  repository: $name'"
  # The comment above that line is about building the image, which users of a release do not do. The README and the
  # schema are generated from both.
  sed -i -e "s|^  repository: $name\$|  repository: $registry/$name|" \
    -e "s/\`image.repository\` | \`\"$name\"\`/\`image.repository\` | \`\"${registry//\//\\/}\/$name\"\`/" \
    -e "s|$built|$released|" "$work/$name"/{values.yaml,README.md,values.schema.json}
  sed -i "s|image: $name:|image: $registry/$name:|" "$work/$name/Chart.yaml"
  mkdir -p "$folder"
  "$helm" package "$work/$name" --destination "$folder" >&2
}

case ${1:-}-$# in
version-2 | notes-2 | image-3 | chart-3) "$@" ;;
*) die "usage: release.sh version TAG | notes VERSION | image PROGRAMS FOLDER | chart REGISTRY FOLDER" ;;
esac
