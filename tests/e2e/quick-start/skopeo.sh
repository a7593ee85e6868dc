#!/usr/bin/env bash
# The skopeo of the quick start's test: the node images have no way to a registry that is attached to the cluster, so the
# image is loaded into the nodes under the name to which the README pushes it.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

case $* in
'login --username 00000000-0000-0000-0000-000000000000 --password-stdin myplatform.azurecr.io')
  [[ $(cat) == "$QUICK_START_TOKEN" ]] || die "the password is not the token of az acr login"
  ;;
'copy docker-archive:'*' docker://myplatform.azurecr.io/'*)
  use_cluster
  reference=${3#docker://} archive=$QUICK_START/webhook.tar
  rm -f "$archive"
  skopeo --insecure-policy copy --quiet "$2" "docker-archive:$archive:$reference"
  load_image "$reference" "$archive" >/dev/null
  ;;
*) die "tests/e2e/quick-start/skopeo.sh does not know: skopeo $*" ;;
esac
