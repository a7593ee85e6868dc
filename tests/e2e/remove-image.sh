#!/usr/bin/env bash
# remove-image.sh IMAGE: removes an image, by all of its names, from the nodes that have it: who needs it next has to pull it.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/e2e/nodes.sh
source "$root/tests/e2e/nodes.sh"

(($# == 1)) || die "usage: remove-image.sh IMAGE"
use_cluster
removed=
while read -r node; do
  # shellcheck disable=SC2016 # expanded on the node
  names=$(node_exec "$node" sh -ec '
    digest=$(ctr -n k8s.io images ls "name==$1" | awk "NR > 1 { print \$3 }")
    [ -n "$digest" ] || exit 0
    ctr -n k8s.io images ls -q "target.digest==$digest" | xargs ctr -n k8s.io images rm --sync' sh "$1" </dev/null) ||
    die "could not remove $1 from node $node; the reason is above"
  removed+=$names
done <<<"$(nodes)"
[[ -n $removed ]] || die "no node has $1"
