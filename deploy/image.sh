#!/usr/bin/env bash
# image.sh acr-pull-webhook|azure-emulator: builds that image as an archive in the cache folder and prints
# "REFERENCE ARCHIVE". The tag contains a hash of the image's content, so a changed program changes the reference.
#
# CONTAINER_TOOL is docker, podman or buildah; default: the first of them that works here. If none is installed,
# Debian's buildah is installed, which does not need a daemon. PROFILE is the cargo profile of the webhook; default:
# release.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

container_tool() {
  if [[ -n ${CONTAINER_TOOL:-} ]]; then
    command -v "$CONTAINER_TOOL" >/dev/null || die "CONTAINER_TOOL=$CONTAINER_TOOL is not installed"
    printf '%s\n' "$CONTAINER_TOOL"
  elif docker info >/dev/null 2>&1; then
    echo docker
  elif podman info >/dev/null 2>&1; then
    echo podman
  else
    # buildah requires its network helper at start-up, and the Debian package only recommends it.
    { command -v buildah && compgen -G '/usr/lib*/podman/netavark'; } >/dev/null ||
      "$root/deploy/packages.sh" buildah netavark
    echo buildah
  fi
}

# build TOOL CONTAINERFILE REFERENCE ARCHIVE: builds with the work folder as context.
build() {
  local tool=$1 file=$2 reference=$3 archive=$4
  # docker without buildx does not set TARGETARCH.
  local arguments=(--build-arg "VERSION=$version" --build-arg "TARGETARCH=$architecture" --tag "$reference" --file "$file")
  case $tool in
  docker)
    docker build --quiet "${arguments[@]}" "$work" &&
      docker save --output "$archive" "$reference"
    ;;
  podman)
    podman build --quiet "${arguments[@]}" "$work" &&
      podman save --quiet --format docker-archive --output "$archive" "$reference"
    ;;
  buildah)
    # vfs and chroot also work in an unprivileged container; the build is small and does not run any program.
    buildah --storage-driver vfs bud --quiet --isolation chroot "${arguments[@]}" "$work" &&
      buildah --storage-driver vfs push --quiet "$reference" "docker-archive:$archive:$reference" &&
      buildah --storage-driver vfs rmi "$reference"
    ;;
  *) die "CONTAINER_TOOL must be docker, podman or buildah, not '$tool'" ;;
  esac
}

name=${1:-}
# The name of the architecture in image platforms.
architecture=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
case $name in
acr-pull-webhook)
  containerfile=$root/Containerfile
  "$root/deploy/binary.sh" "$name" "${PROFILE:-release}" "$work/$architecture/$name"
  ;;
azure-emulator)
  containerfile=$root/tests/e2e/Containerfile
  "$root/deploy/binary.sh" "$name" quick "$work/$name"
  cp "$("$root/tests/registry/build.sh")" "$work/registry"
  ;;
*) die "usage: image.sh acr-pull-webhook|azure-emulator" ;;
esac

version=$(cd "$root" && cargo metadata --format-version 1 --no-deps --locked | grep -o "\"name\":\"$name\",\"version\":\"[^\"]*\"" | cut -d '"' -f 8)
mapfile -t programs < <(find "$work" -type f | sort)
tag=$version-$(content_hash "$containerfile" "${programs[@]}")
# With a host, because tools complete a name without one in different ways.
reference=localhost/$name:$tag
images=$(cache_dir)/images
archive=$images/$name-$tag.tar
mkdir -p "$images"
if [[ ! -s $archive ]]; then
  tool=$(container_tool)
  rm -f "$images/$name"-*.tar
  progress "building the image $reference with $tool" build "$tool" "$containerfile" "$reference" "$work/image.tar"
  mv "$work/image.tar" "$archive"
fi
printf '%s %s\n' "$reference" "$archive"
