# The tests of build.sh and of deploy/packages.sh, which need no root. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # $here and $work are test.sh's

a_missing_or_old_go_is_one_clear_sentence() {
  local said tools=$work/tools
  mkdir "$tools"
  ln -s /usr/bin/* "$tools/"
  rm -f "$tools/go"
  said=$(refusal env PATH="$tools" XDG_CACHE_HOME="$work/empty" "$here/build.sh")
  contains "$said" "no 'go' is in PATH: install it from https://go.dev/dl/"
  equal 1 "$(wc -l <<<"$said")"

  printf '#!/bin/sh\necho go1.20.1\n' >"$tools/go"
  chmod +x "$tools/go"
  said=$(refusal env PATH="$tools" XDG_CACHE_HOME="$work/empty" "$here/build.sh")
  contains "$said" "but $tools/go is 1.20.1"
  equal 1 "$(wc -l <<<"$said")"
  # A later build must not find an incomplete folder.
  equal "" "$(find "$work/empty" -mindepth 4 -type d)"
}

two_builds_at_once_build_once() {
  local folder=$work/once
  fill_slowly() {
    echo built >>"$work/builds"
    sleep 1
    touch "$1/file"
  }
  build_once "$folder" fill_slowly &
  build_once "$folder" fill_slowly
  wait "$!"
  equal built "$(<"$work/builds")"
  equal file "$(ls "$folder")"
}

missing_packages_are_named_where_they_cannot_be_installed() {
  # As a user who is not root, from a copy, since that user may not be allowed into this folder.
  local said runner=() copy
  copy=$(mktemp -d)
  cp "$root"/deploy/{packages,lib}.sh "$copy"
  chmod -R a+rX "$copy"
  ((EUID != 0)) || runner=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  said=$(refusal "${runner[@]}" "$copy/packages.sh" bash no-such-package)
  rm -r "$copy"
  contains "$said" "missing Debian packages: no-such-package. Run: sudo apt-get install --no-install-recommends no-such-package"
}

check a_missing_or_old_go_is_one_clear_sentence
check two_builds_at_once_build_once
check missing_packages_are_named_where_they_cannot_be_installed
