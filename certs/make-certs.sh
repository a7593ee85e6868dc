#!/usr/bin/env bash
# Creates a certificate authority (CA) and a serving certificate for a webhook, with openssl:
#
#   make-certs.sh [--days N] [--ca-days N] [--renew-before N] DIR DNSNAME...
#
# writes DIR/ca.crt, ca.key, tls.crt and tls.key (keys readable only by their owner). It can be run repeatedly: it keeps
# certificates that have these names and are valid for at least --renew-before more days.
set -euo pipefail

declare -A options=([days]=365 [ca-days]=3650 [renew-before]=30)
config=$(dirname "${BASH_SOURCE[0]}")/openssl.cnf

die() {
  printf 'make-certs.sh: %s\n' "$*" >&2
  exit 1
}

parse() {
  local name
  while [[ ${1:-} == -* ]]; do
    case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" && exit ;;
    --days | --ca-days | --renew-before)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "$1 requires a number of days, not '${2:-}'"
      options[${1#--}]=$2
      shift 2
      ;;
    *) die "unknown option $1: see make-certs.sh --help" ;;
    esac
  done
  (($# >= 2)) || die "a folder and at least one DNS name are needed: see make-certs.sh --help"
  dir=$1 names=("${@:2}") days=${options[days]} ca_days=${options[ca-days]} renew_before=${options[renew-before]}
  for name in "${names[@]}"; do
    [[ $name =~ ^(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$ ]] || die "'$name' is not a DNS name"
  done
  ((renew_before < days)) || die "--renew-before $renew_before would renew a certificate of --days $days immediately"
  ((days <= ca_days)) || die "--days $days is longer than the lifetime of the CA, --ca-days $ca_days"
  # Sorted, so that two lists can be compared.
  ALT_NAMES=$(printf 'DNS:%s\n' "${names[@]}" | sort -u | paste -s -d ,)
  export ALT_NAMES
}

# is_lasting CERTIFICATE: whether the file exists and the certificate is valid past --renew-before.
is_lasting() {
  [[ -s $1 ]] && openssl x509 -in "$1" -noout -checkend "$((renew_before * 86400))" >/dev/null
}

# is_pair CERTIFICATE KEY: whether both have the same public key.
is_pair() {
  [[ $(openssl x509 -in "$1" -noout -pubkey) == "$(openssl pkey -in "$2" -pubout 2>/dev/null)" ]]
}

make_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
serial() { printf '0x%s' "$(openssl rand -hex 15)"; }

names_of() {
  openssl x509 -in "$1" -noout -ext subjectAltName | grep -o 'DNS:[^, ]*' | sort -u | paste -s -d ,
}

# A renewed CA keeps its key and name, so that existing certificates and bundles stay valid.
make_ca() {
  [[ -s $dir/ca.key ]] || make_key "$dir/ca.key"
  openssl req -x509 -new -key "$dir/ca.key" -out "$dir/ca.crt.new" -days "$ca_days" -set_serial "$(serial)" \
    -config "$config" -extensions ca
  mv "$dir/ca.crt.new" "$dir/ca.crt"
}

make_serving() {
  local request output
  make_key "$dir/tls.key.new"
  request=$(openssl req -new -key "$dir/tls.key.new" -config "$config" -subj "/CN=${names[0]:0:64}")
  output=$(openssl x509 -req -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -set_serial "$(serial)" -days "$days" \
    -out "$dir/tls.crt.new" -extfile "$config" -extensions serving <<<"$request" 2>&1) || die "$output"
  mv "$dir/tls.key.new" "$dir/tls.key"
  mv "$dir/tls.crt.new" "$dir/tls.crt"
}

ca_is_good() {
  [[ -s $dir/ca.key ]] && is_lasting "$dir/ca.crt" && is_pair "$dir/ca.crt" "$dir/ca.key"
}

serving_is_good() {
  [[ -s $dir/tls.key ]] && is_lasting "$dir/tls.crt" && is_pair "$dir/tls.crt" "$dir/tls.key" &&
    [[ $(names_of "$dir/tls.crt") == "$ALT_NAMES" ]] &&
    openssl verify -CAfile "$dir/ca.crt" "$dir/tls.crt" >/dev/null 2>&1
}

parse "$@"
command -v openssl >/dev/null || die "openssl is not installed"
umask 077
mkdir -p "$dir"
ca_is_good || make_ca
serving_is_good || make_serving
chmod 600 "$dir"/{ca,tls}.key
chmod 644 "$dir"/{ca,tls}.crt
for file in ca.crt tls.crt; do
  printf '%s: valid until %s\n' "$dir/$file" "$(openssl x509 -in "$dir/$file" -noout -enddate | cut -d = -f 2)"
done
