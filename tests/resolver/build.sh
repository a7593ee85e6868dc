#!/usr/bin/env bash
# build.sh: builds the program `resolver` as the webhook's program is built, and prints its path.
set -euo pipefail
# shellcheck source=deploy/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/lib.sh"

program=$(cache_dir)/resolver
"$root/deploy/binary.sh" resolver quick "$program"
printf '%s\n' "$program"
