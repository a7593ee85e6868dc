#!/usr/bin/env bash
# prepare.sh: installs and builds what `cluster.sh up` needs. On a terminal it asks whether packages may be installed.
set -euo pipefail
# shellcheck source=tests/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/kind/provider.sh
source "$here/provider.sh"

provider='' image=''
choose_provider
kind_program >/dev/null
# The tests of the cluster compare what is on the machine before and after it.
[[ $provider != own ]] || "$here/tidy.sh"
