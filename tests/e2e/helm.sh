#!/usr/bin/env bash
# Tests of installing by the Helm chart: brings azure-emulator, the image, helm and cert-manager to the cluster of KUBECONFIG,
# else the local one, which must be up, and runs the tests of tests/e2e/chart there. What is installed is removed first.
# E2E_ROTATIONS is how often certificates are replaced under load, every 20 s.
set -euo pipefail
# shellcheck source=tests/e2e/emulator.sh
source "$(dirname "${BASH_SOURCE[0]}")/emulator.sh"

emulator_address='' emulator_ca=''

# image_values REFERENCE: the image that the tests install.
image_values() {
  echo "image:"
  case ${1##*/} in
  *@*) printf '  repository: %s\n  digest: %s\n' "${1%@*}" "${1##*@}" ;;
  *) printf '  repository: %s\n  tag: "%s"\n' "${1%:*}" "${1##*:}" ;;
  esac
}

# The emulator's address, and its certificate authority.
cluster_values() {
  cat <<YAML
hostAliases:
  - ip: $emulator_address
    hostnames: [$(printf '%s, ' "${emulated_hosts[@]}" | sed 's/, $//')]
extraCa:
  pem: |
$(sed 's/^/    /' "$emulator_ca")
YAML
}

# A deployment by deploy.sh, of an earlier run, would be in the way.
remove_deployment() {
  local overlay
  overlay=$(state_dir)/webhook
  [[ ! -s $overlay/kustomization.yaml ]] || kube delete --kustomize "$overlay" --ignore-not-found >/dev/null
}

need skopeo
use_cluster
deploy_emulator
reference=${IMAGE:-}
[[ -n $reference ]] || reference=$(image_in_cluster acr-pull-webhook)
remove_deployment
E2E_FOLDER=$(state_dir)/helm
mkdir -p "$E2E_FOLDER"
HELM=$("$root/tests/chart/build.sh")
CERT_MANAGER=$("$root/tests/cert-manager/build.sh")
# The quick start names its own image.
CHART_VALUES=$E2E_FOLDER/values.yaml CLUSTER_VALUES=$E2E_FOLDER/cluster.yaml
cluster_values >"$CLUSTER_VALUES"
{ image_values "$reference" && cluster_values; } >"$CHART_VALUES"
# The program that a person runs.
PROGRAM=$E2E_FOLDER/acr-pull-webhook
"$root/deploy/binary.sh" acr-pull-webhook "${PROFILE:-release}" "$PROGRAM"
export E2E_FOLDER HELM CERT_MANAGER CHART_VALUES CLUSTER_VALUES PROGRAM
export HELM_CACHE_HOME=$E2E_FOLDER/home HELM_CONFIG_HOME=$E2E_FOLDER/home HELM_DATA_HOME=$E2E_FOLDER/home
cd "$root"
cargo test --locked --workspace --test chart -- --test-threads=1
