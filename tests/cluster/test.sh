#!/usr/bin/env bash
# test.sh [build] [control-plane]: the tests of this folder, all without an argument.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=check.sh
source "$here/check.sh"

(($#)) || set -- build control-plane
work=$(mktemp -d) go_tests=passed
trap 'rm -rf "$work"' EXIT

for part; do
  case $part in
  control-plane)
    "$here/build.sh" >/dev/null
    go_in "$here/kubernetes" test -count=1 -v ./controlplane || go_tests=failed
    ;;
  build)
    # shellcheck source-path=SCRIPTDIR source=test-build.sh
    source "$here/test-build.sh"
    ;;
  *) die "usage: test.sh [build] [control-plane]" ;;
  esac
done
summary && [[ $go_tests == passed ]]
