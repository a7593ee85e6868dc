#!/usr/bin/env bash
# release.sh: the steps of .github/workflows/release.yml that need no right of anybody's, so that they can be tried
# here.
#
#   release.sh version TAG             checks that v1.2.3 is what the repository says everywhere, and prints 1.2.3
#   release.sh notes VERSION           prints that version's part of CHANGELOG.md
#   release.sh image PROGRAMS FOLDER   an image for all architectures, as an OCI layout in FOLDER, tagged with the version.
#                                      PROGRAMS holds ARCHITECTURE/acr-pull-webhook for each (deploy/binary.sh)
#   release.sh chart REGISTRY FOLDER   the chart as an archive in FOLDER, with the image REGISTRY/acr-pull-webhook as default
#
# SOURCE_DATE_EPOCH is the time that image and chart tell; by default that of the last commit. With the same programs
# and buildah it gives the same image digest.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/e2e/lib.sh"

architectures=(amd64 arm64)
name=acr-pull-webhook
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# told FILE KEY: the value of the first line "KEY: value" or "KEY = value".
told() {
  sed -nE "s/^$2 *[:=] *\"?([^\"]*)\"?\$/\1/p" "$root/$1" | head -n 1
}

version() {
  local version=${1#v}
  [[ $1 == v* ]] || die "the tag $1 is not of the form v1.2.3"
  [[ $(told Cargo.toml version) == "$version" ]] || die "the tag is $1, and the version in Cargo.toml $(told Cargo.toml version)"
  for key in version appVersion; do
    [[ $(told deploy/chart/Chart.yaml "$key") == "$version" ]] ||
      die "the tag is $1, and $key in deploy/chart/Chart.yaml $(told deploy/chart/Chart.yaml "$key")"
  done
  [[ -n $(notes "$version") ]] || die "CHANGELOG.md tells nothing of $version: rename [Unreleased] to [$version] - $(date +%F)"
  printf '%s\n' "$version"
}

notes() {
  awk -v heading="## [$1]" 'index($0, "## ") == 1 { found = index($0, heading) == 1; next } found' "$root/CHANGELOG.md" |
    sed -e '/./,$!d'
}

time_of_release() {
  printf '%s\n' "${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}"
}

# Without root's rights where it can: vfs and chroot need none, and nothing here is run.
buildah_here() {
  local command=$1
  shift
  buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$command" "$@"
}

image() {
  local programs=$1 folder architecture version epoch
  folder=$(realpath -m "$2")
  version=$(told Cargo.toml version)
  epoch=$(time_of_release)
  command -v buildah >/dev/null || need buildah
  [[ ! -e $folder ]] || die "$folder is there already"
  for architecture in "${architectures[@]}"; do
    # Whatever rights and other files were there before: an artifact's are not kept.
    install -D -m 755 "$programs/$architecture/$name" "$work/context/$architecture/$name"
  done
  # One after the other, because their order is part of the digest; without a label that names buildah's version.
  for architecture in "${architectures[@]}"; do
    buildah_here bud --quiet --isolation chroot --format oci --identity-label=false --timestamp "$epoch" \
      --platform "linux/$architecture" --build-arg "VERSION=$version" --manifest "$name" --file "$root/Containerfile" "$work/context" >&2
  done
  buildah_here manifest push --quiet --all --format oci "$name" "oci:$folder:$version" >&2
}

chart() {
  local registry=$1 folder helm
  folder=$(realpath -m "$2")
  helm=$(command -v helm || "$root/tests/chart/build.sh")
  cp -r "$root/deploy/chart" "$work/$name"
  grep -q "^  repository: $name\$" "$work/$name/values.yaml" || die "values.yaml has no line '  repository: $name'"
  # The comment above it is for whoever builds the image.
  sed -i -e "s|^  repository: $name\$|  repository: $registry/$name|" \
    -e 's|^  # Where the image is: .*|  # The release. The webhook cannot get a pull secret for itself: a copy of the image must be pullable without one too.|' \
    "$work/$name/values.yaml"
  mkdir -p "$folder"
  "$helm" package "$work/$name" --destination "$folder" >&2
}

case ${1:-}-$# in
version-2 | notes-2 | image-3 | chart-3) "$@" ;;
*) die "usage: release.sh version TAG | notes VERSION | image PROGRAMS FOLDER | chart REGISTRY FOLDER" ;;
esac
