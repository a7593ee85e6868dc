#!/usr/bin/env bash
# rooms.sh: fails where a room of src/ imports from a room above it. The map of the rooms is in src/lib.rs. Tests may import
# from anywhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# From the top to the bottom. A room imports only from rooms below it.
rooms=(
  main serve check cli fuzz crds
  upkeep admission pull_secret generator registry identity
  tls leader live_pod watch cluster events transport excluded kubernetes
  telemetry problem reference names text untrusted deadline jwt pem start_error tasks ttl_cache fair_semaphore
)

# Prints "FILE:LINE ROOM" for each room that a file imports outside its tests.
imports() {
  awk '
    FNR == 1 { depth = 0; list = 0; tests = 0; pending = "" }
    /^#\[cfg\(test\)\]$/ { pending = FNR }
    /^mod tests \{$/ && pending == FNR - 1 { tests = 1 }
    tests { next }
    { sub(/\/\/.*/, "") }
    /^(pub )?use crate::\{/ { list = 1; depth = 0; sub(/.*use crate::/, "") }
    list {
      word = ""
      for (i = 1; i <= length($0); i++) {
        c = substr($0, i, 1)
        if (c ~ /[a-z_]/ && depth == 1) word = word c
        else {
          if (word != "" && depth == 1 && !inside) print FILENAME ":" FNR, word
          inside = (depth == 1 && c == ":") ? 1 : (c == "," || c == "{" || c == "}") ? 0 : inside
          word = ""
          if (c == "{") { depth++; inside = (depth > 1) }
          if (c == "}") { depth--; inside = 0 }
        }
      }
      if (word != "" && depth == 1 && !inside) print FILENAME ":" FNR, word
      if (depth == 0) list = 0
      next
    }
    {
      line = $0
      while (match(line, /crate::[a-z_]+/)) {
        print FILENAME ":" FNR, substr(line, RSTART + 7, RLENGTH - 7)
        line = substr(line, RSTART + RLENGTH)
      }
    }
  ' "$@"
}

floor() {
  local place
  for place in "${!rooms[@]}"; do
    [[ ${rooms[place]} != "$1" ]] || { echo "$place" && return; }
  done
  echo "rooms.sh does not know the room '$1': add it to the list, and to the map in src/lib.rs" >&2
  return 1
}

upward=0
mapfile -t files < <(find src -name '*.rs' ! -name 'tests.rs' ! -path src/lib.rs)
while read -r place imported; do
  room=${place#src/} room=${room%%[/.]*}
  [[ $room != "$imported" ]] || continue
  if (($(floor "$imported") < $(floor "$room"))); then
    echo "$place: '$room' imports from '$imported', which is above it"
    upward=1
  fi
done < <(imports "${files[@]}" | sort -u)
((upward == 0)) || { echo "move what both rooms need into a room below them" >&2 && exit 1; }
