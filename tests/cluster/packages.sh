#!/usr/bin/env bash
# packages.sh NAME...: makes sure that these Debian packages are installed, or says which are missing and what to run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

(($#)) || die "usage: packages.sh NAME..."
command -v dpkg-query apt-get >/dev/null ||
  die "this machine has no apt: install what Debian calls '$*' by its own means, then run this again"

missing=()
for name; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
done
((${#missing[@]})) || exit 0

((EUID == 0)) ||
  die "missing Debian packages: ${missing[*]}. Run: sudo apt-get install --no-install-recommends ${missing[*]}"

# Only a package list that is absent or outdated is fetched anew: most runs need no network for it.
install_missing() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}"
}
update_then_install() {
  install_missing || { apt-get update && install_missing; }
}
progress "installing Debian packages: ${missing[*]}" update_then_install
