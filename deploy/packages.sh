#!/usr/bin/env bash
# packages.sh NAME...: makes sure that these Debian packages are installed, or says which are missing and what to run.
# They are installed without a question where CI is set, where there is no terminal to ask on, and after the user agreed
# once: packages.sh --agree.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/lib.sh
source "$here/lib.sh"

(($#)) || die "usage: packages.sh --agree | NAME..."
agreed=$(cache_dir)/install-packages
if [[ $1 == --agree ]]; then
  mkdir -p "${agreed%/*}"
  echo "Debian packages that a command needs are installed without a question. Remove this file to be asked again." >"$agreed"
  exit
fi
command -v dpkg-query apt-get >/dev/null ||
  die "this machine has no apt: install what Debian calls '$*' by its own means, then run this again"

missing=()
for name; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
done
((${#missing[@]})) || exit 0

command=(apt-get install --no-install-recommends "${missing[@]}")
((EUID == 0)) || die "missing Debian packages: ${missing[*]}. Run: sudo ${command[*]}"

# The question is asked on the terminal: the output of this script may be read by another one.
agrees() {
  [[ -n ${CI:-} || -f $agreed ]] && return
  { : </dev/tty; } 2>/dev/null || return 0
  # A process in the background would be stopped when it reads from the terminal.
  local group foreground answer
  read -r _ _ _ _ group _ _ foreground _ <"/proc/$$/stat"
  [[ $group == "$foreground" ]] || return 1
  { read -rp "Missing Debian packages: ${missing[*]}. Install them, and others later when they are needed? [y/N] " answer; } \
    </dev/tty 2>/dev/tty || return 1
  [[ $answer == [yY]* ]] && "$here/packages.sh" --agree
} 2>/dev/null
agrees || die "missing Debian packages: ${missing[*]}. Run: ${command[*]}
Or run 'make packages' once, and they are installed whenever they are needed."

# The package list is only updated if it is absent or outdated: most runs need no network for it.
install_missing() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}"
}
update_then_install() {
  install_missing || { apt-get update && install_missing; }
}
progress "installing Debian packages: ${missing[*]}" update_then_install
