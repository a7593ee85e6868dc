#!/usr/bin/env bash
# All end-to-end tests. On local clusters, those of the chart run at the same time as the others, on a cluster of their own:
# they wait for kubelets and rollouts most of the time. On a cluster that the user names, they run one after the other.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/sequences.sh
source "$root/tests/sequences.sh"
run=$root/tests/e2e/run.sh

run_webhook_tests() {
  "$run" webhook
}

run_chart_tests() {
  ACR_PULL_CLUSTER_NAME=${ACR_PULL_CLUSTER_NAME:-local}-chart "$run" helm
}

! foreign_named || exec "$run"
# What may ask whether packages may be installed: the two sequences cannot ask.
need skopeo
"$root/tests/kind/prepare.sh"
run_sequences "of the chart" run_webhook_tests run_chart_tests
