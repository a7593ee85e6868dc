#!/usr/bin/env bash
# Tests that the registry is one static program that stores and returns a blob. Needs curl.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
source "$here/../cluster/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../cluster/check.sh
source "$here/../cluster/check.sh"

command -v curl >/dev/null || die "curl is missing: install the package curl"
work=$(mktemp -d)
server=''
trap '[[ -z $server ]] || kill "$server"; rm -rf "$work"' EXIT
registry=$("$here/build.sh")

# start DRIVER YAML: starts the registry on a free port, which is in its log. Sets $server and $url.
start() {
  cat >"$work/config.yml" <<YAML
version: 0.1
log: {level: info}
http: {addr: "127.0.0.1:0"}
storage: {$1: $2}
YAML
  # The background job could be too late, and the lines of the previous server would be read.
  : >"$work/log"
  "$registry" serve "$work/config.yml" >"$work/log" 2>&1 &
  server=$!
  await 10 grep -q 'listening on 127' "$work/log" || { cat "$work/log" && return 1; }
  url=http://$(sed -n 's/.*listening on \(127[0-9.:]*\).*/\1/p' "$work/log")
}

stop() {
  kill "$server"
  wait "$server" || true
  server=''
}

a_blob_is_stored_and_returned() {
  local digest place
  digest=sha256:$(printf %s "$1" | sha256sum | cut -d ' ' -f 1)
  place=$(curl -fsS -X POST -o "$work/answer" -w '%header{location}' "$url/v2/team/app/blobs/uploads/")
  curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary "$1" "$place&digest=$digest"
  equal "$1" "$(curl -fsS "$url/v2/team/app/blobs/$digest")"
}

it_is_one_static_program() {
  contains "$(ldd "$registry" 2>&1 || true)" "not a dynamic executable"
}

the_inmemory_driver_stores_and_returns() {
  start inmemory "{}"
  a_blob_is_stored_and_returned hello
  stop
}

the_filesystem_driver_keeps_what_it_stored() {
  start filesystem "{rootdirectory: $work/data}"
  a_blob_is_stored_and_returned hello
  stop
  start filesystem "{rootdirectory: $work/data}"
  equal hello "$(curl -fsS "$url/v2/team/app/blobs/sha256:$(printf hello | sha256sum | cut -d ' ' -f 1)")"
  stop
}

check it_is_one_static_program
check the_inmemory_driver_stores_and_returns
check the_filesystem_driver_keeps_what_it_stored
summary
