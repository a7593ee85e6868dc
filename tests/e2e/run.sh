#!/usr/bin/env bash
# The end-to-end tests: deploys to the cluster of KUBECONFIG and runs the crate tests/e2e against it. Without KUBECONFIG
# it starts the local cluster, and stops it again unless it was running before.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ -z ${KUBECONFIG:-} ]]; then
  ((EUID == 0)) || die "the local cluster needs root: run this as root, or set KUBECONFIG to a cluster of yours"
  if ! "$local_cluster" status >/dev/null; then
    # Nothing may follow the tests' own closing lines.
    trap '"$local_cluster" down >/dev/null' EXIT
    "$local_cluster" up >/dev/null
  fi
fi
use_cluster
# One test searches the log for credentials: everything that can be said shall be said.
ACR_PULL_WEBHOOK_LOG_LEVEL=trace "$root/tests/e2e/deploy.sh"
cd "$root"
# No doc tests: an empty "0 passed" would be the last word.
cargo test --locked --package e2e --test '*'
