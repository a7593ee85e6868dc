#!/usr/bin/env bash
# test.sh [build] [control-plane] [cluster]: the tests of this folder, all without an argument. Those of the cluster
# need root; they use a cluster of their own name, and leave one that is up alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=check.sh
source "$here/check.sh"

(($#)) || set -- build control-plane cluster
work=$(mktemp -d) go_tests=passed
trap 'finish' EXIT
# shellcheck disable=SC2034 # test-cluster.sh uses it
bin=$("$here/build.sh")

finish() {
  [[ ! ${ACR_PULL_CLUSTER_NAME:-} == self-test ]] || "$here/cluster.sh" down || true
  rm -rf "$work"
}

for part; do
  case $part in
  # The setting of the compiler is none of the components'.
  control-plane)
    go_in "$here/kubernetes" test -count=1 -v -exec "env -u GOGC" ./controlplane || go_tests=failed
    ;;
  build | cluster)
    # shellcheck source-path=SCRIPTDIR source=test-build.sh source=test-cluster.sh
    source "$here/test-$part.sh"
    ;;
  *) die "usage: test.sh [build] [control-plane] [cluster]" ;;
  esac
done
summary && [[ $go_tests == passed ]]
