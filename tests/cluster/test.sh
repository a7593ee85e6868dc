#!/usr/bin/env bash
# test.sh [control-plane] [cluster]: the tests of this folder, all without an argument. Those of the cluster need root;
# they use a cluster of their own name, and leave one that is up alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=check.sh
source "$here/check.sh"

(($#)) || set -- control-plane cluster
work=$(mktemp -d)
trap 'finish' EXIT
bin=$("$here/build.sh")

finish() {
  [[ ! ${ACR_PULL_CLUSTER_NAME:-} == self-test ]] || "$here/cluster.sh" down || true
  rm -rf "$work"
}

for part; do
  [[ $part == @(control-plane|cluster) ]] || die "usage: test.sh [control-plane] [cluster]"
  # shellcheck source-path=SCRIPTDIR source=test-control-plane.sh source=test-cluster.sh
  source "$here/test-$part.sh"
done
summary
