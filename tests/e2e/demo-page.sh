# How the demo prints its steps. Sourced by demo.sh.
# shellcheck shell=bash disable=SC2154 # $steps and $number are those of demo.sh

if [[ -t 1 ]]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' dim='' green='' plain=''
fi

step() {
  number=$((number + 1)) step_started=$SECONDS
  printf '\n%s%d/%d  %s%s\n' "$bold" "$number" "$steps" "$1" "$plain"
}

done_with() {
  printf '     %s✔ %s%s %s(%d s)%s\n' "$green" "$1" "$plain" "$dim" "$((SECONDS - step_started))" "$plain"
}

show() {
  printf '%s\n' "${*:-}" | fold -s -w 100 | sed 's/^./     &/'
}

# indented COMMAND...: with all that it prints set off.
indented() {
  local line
  "$@" 2>&1 | while IFS= read -r line; do
    printf '     %s%s%s\n' "$dim" "$line" "$plain"
  done
}

ended() {
  printf '\n'
  case $1 in
  0) printf 'demo: ok\n' ;;
  # SIGINT and SIGTERM. A command that another signal killed has failed.
  130 | 143) printf 'demo: stopped after %d s in step %d of %d\n' "$SECONDS" "$number" "$steps" ;;
  *) printf 'demo: failed after %d s in step %d of %d; the reason is above\n' "$SECONDS" "$number" "$steps" ;;
  esac
}
