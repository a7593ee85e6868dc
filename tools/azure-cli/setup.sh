#!/usr/bin/env bash
# Installs azure-cli from PyPI and prints the path of its Python interpreter. The first run takes some minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/lib.sh
source "$here/../../deploy/lib.sh"

need python3
# Debian keeps ensurepip, which a new environment needs, in a package of its own.
python3 -c 'import ensurepip, venv' 2>/dev/null || "$root/deploy/packages.sh" python3-venv

install_packages() {
  python3 -m venv "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$here/requirements.txt"
}

fill() {
  progress "installing azure-cli's parser from PyPI" install_packages "$1"
}

version=$(python3 -c 'import platform, sys; print(platform.python_version(), sys.implementation.cache_tag, sep="-")')
folder=$(cache_dir)/azure-cli/$version/$(content_hash "$here"/{requirements.txt,setup.sh})
build_once "$folder" fill
printf '%s\n' "$folder/bin/python"
