#!/usr/bin/env bash
# python.sh REQUIREMENTS WHAT: installs the Python packages of a requirements.txt from PyPI into an environment in the cache
# folder, and prints the path of its interpreter. The first run takes up to some minutes.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/lib.sh"

(($# == 2)) || die "usage: python.sh REQUIREMENTS WHAT"
requirements=$1 what=$2

need python3
# Debian keeps ensurepip, which a new environment needs, in a package of its own.
python3 -c 'import ensurepip, venv' 2>/dev/null || "$root/deploy/packages.sh" python3-venv
python3 -c 'import ensurepip, venv' ||
  die "$(command -v python3) cannot make environments: install its 'venv' and 'ensurepip' modules"

install_packages() {
  python3 -m venv "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$requirements"
}

fill() {
  progress "installing $what from PyPI" install_packages "$1"
}

version=$(python3 -c 'import platform, sys; print(platform.python_version(), sys.implementation.cache_tag, sep="-")')
folder=$(cache_dir)/python/$version/$(content_hash "$requirements" "$root/tools/python.sh")
build_once "$folder" fill
printf '%s\n' "$folder/bin/python"
