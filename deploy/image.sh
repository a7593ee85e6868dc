#!/usr/bin/env bash
# image.sh acr-pull-webhook|azure-emulator: builds that image into an archive under the cache folder and prints
# "REFERENCE ARCHIVE". The tag holds a hash of what is in the image, so a changed program is a changed reference.
#
# CONTAINER_TOOL is docker, podman or buildah; by default the first of them that works here, and where none is
# installed, Debian's buildah, which needs no daemon.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/e2e/lib.sh"

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
    # buildah asks for its network helper before it does anything, and Debian only recommends that.
    { command -v buildah && compgen -G '/usr/lib*/podman/netavark'; } >/dev/null ||
      "$root/tests/cluster/packages.sh" buildah netavark
    echo buildah
  fi
}

# musl_target: this machine's architecture, statically linked.
musl_target() {
  case $(uname -sm) in
  "Linux x86_64") echo x86_64-unknown-linux-musl ;;
  "Linux aarch64") echo aarch64-unknown-linux-musl ;;
  *) die "the image is built on Linux, x86_64 or aarch64, not on $(uname -sm): set IMAGE to one that is already in a registry" ;;
  esac
}

# cargo_build PACKAGE OPTION...: the static release binary of a package, copied into the work folder.
cargo_build() {
  local package=$1 target cc folder
  shift
  command -v cargo >/dev/null || die "cargo is needed to build $package: install Rust from https://rustup.rs"
  command -v cc >/dev/null || need gcc
  target=$(musl_target)
  folder=${CARGO_TARGET_DIR:-$root/target}/$target
  cd "$root"
  if [[ ! -d $(rustc --print target-libdir --target "$target") ]]; then
    command -v rustup >/dev/null || die "Rust's standard library for $target is missing: install it as your Rust was installed"
    progress "adding Rust's target $target" rustup target add "$target"
  fi
  # Only ring has C in it; any compiler for the same machine does.
  cc=CC_${target//-/_}
  export "$cc=${!cc:-$(command -v musl-gcc || command -v cc)}"
  progress "building $package for $target" cargo build --locked --package "$package" --target "$target" "$@"
  install -m 755 "$folder/$profile/$package" "$work/$package"
}

# build TOOL CONTAINERFILE REFERENCE ARCHIVE: the work folder is all that the build sees.
build() {
  local tool=$1 file=$2 reference=$3 archive=$4
  local arguments=(--build-arg "VERSION=$version" --tag "$reference" --file "$file")
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
    # vfs and chroot need no privilege that a container lacks, and nothing here is large or run.
    buildah --storage-driver vfs bud --quiet --isolation chroot "${arguments[@]}" "$work" &&
      buildah --storage-driver vfs push --quiet "$reference" "docker-archive:$archive:$reference" &&
      buildah --storage-driver vfs rmi "$reference"
    ;;
  *) die "CONTAINER_TOOL is docker, podman or buildah, not '$tool'" ;;
  esac
}

name=${1:-}
case $name in
acr-pull-webhook)
  containerfile=$root/Containerfile profile=release
  cargo_build "$name" --release
  ;;
azure-emulator)
  containerfile=$root/tests/e2e/Containerfile profile=quick
  # A test program: whole-program optimisation would cost minutes and gain nothing.
  cargo_build "$name" --profile quick
  cp "$("$root/tests/registry/build.sh")" "$work/registry"
  ;;
*) die "usage: image.sh acr-pull-webhook|azure-emulator" ;;
esac

version=$(cd "$root" && cargo metadata --format-version 1 --no-deps --locked | grep -o "\"name\":\"$name\",\"version\":\"[^\"]*\"" | cut -d '"' -f 8)
tag=$version-$(content_hash "$containerfile" "$work"/*)
# A name with a host, because every tool completes one without differently.
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
