# azure-emulator in the cluster: its deployment and its control port. Sourced, never run.
# shellcheck shell=bash
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/e2e/nodes.sh
source "$root/tests/e2e/nodes.sh"

emulator_namespace=azure-emulator
# The names under which the emulator answers on the cluster.
emulated_registries=(contoso.azurecr.io fabrikam.azurecr.io)
emulated_hosts=(login.microsoftonline.com "${emulated_registries[@]}")
# Reached through the API server's own proxy, so that it works from wherever kubectl works.
emulator_control=/api/v1/namespaces/$emulator_namespace/services/azure-emulator:control/proxy

# post_world FILE: makes FILE the emulator's world, with CLUSTER_ISSUER and CLUSTER_JWKS in it replaced by this cluster's:
# what Azure would fetch from the issuer's public address.
post_world() {
  local issuer jwks world
  issuer=$(kube get --raw /.well-known/openid-configuration | sed 's/.*"issuer":"\([^"]*\)".*/\1/')
  jwks=$(kube get --raw /openid/v1/jwks)
  world=$(cat "$1")
  world=${world//CLUSTER_ISSUER/"$issuer"}
  world=${world//CLUSTER_JWKS/"$jwks"}
  emulator_post /world - <<<"$world" >/dev/null || die "the emulator refused the world of $1; its reason is above"
}

# emulator_get PATH, emulator_post PATH FILE, emulator_delete PATH: its control port.
emulator_get() {
  kube get --raw "$emulator_control$1"
}
emulator_post() {
  kube create --raw "$emulator_control$1" -f "$2"
}
emulator_delete() {
  kube delete --raw "$emulator_control$1"
}

# deploy_emulator: sets emulator_address (the address of Azure's names), emulator_ca (a file) and, on a cluster that is
# not kind, identity_endpoint.
deploy_emulator() {
  local reference folder
  reference=$(image_in_cluster azure-emulator)
  folder=$(state_dir)/azure-emulator
  mkdir -p "$folder/ca"
  make_emulator_ca "$folder/ca"
  cat >"$folder/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: $emulator_namespace
resources:
  - $(relative_to "$folder" "$root/tests/e2e/manifests/azure-emulator")
images:
$(kustomize_image azure-emulator "$reference")
secretGenerator:
  - name: ca
    files: [ca/ca.crt, ca/ca.key]
YAML
  apply --kustomize "$folder"
  rolled_out "$emulator_namespace" azure-emulator
  emulator_address=$(kube --namespace "$emulator_namespace" get service azure-emulator -o 'jsonpath={.spec.clusterIP}')
  # shellcheck disable=SC2034 # for the scripts that source this file
  emulator_ca=$folder/ca/ca.crt
  wait_for 30 "the emulator answers through the API server" emulator_answers
  teach_nodes "$folder/ca/ca.crt"
  # On another cluster that address may be the real one; there managed identities are asked for in App Service's form.
  if [[ $CLUSTER == other ]]; then
    # shellcheck disable=SC2034 # for the scripts that source this file
    identity_endpoint=http://$(kube --namespace "$emulator_namespace" get service imds -o 'jsonpath={.spec.clusterIP}')/msi/token
  else
    kube --namespace "$emulator_namespace" patch service imds --subresource status --type merge \
      --patch '{"status":{"loadBalancer":{"ingress":[{"ip":"169.254.169.254"}]}}}' >/dev/null
  fi
  post_world "$root/examples/kind-with-emulator/world.yaml"
}

make_emulator_ca() {
  "$root/certs/make-certs.sh" "$1" "${emulated_hosts[@]}" >/dev/null
}

emulator_answers() {
  emulator_get /healthz >/dev/null 2>&1
}
