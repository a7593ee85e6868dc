#!/usr/bin/env bash
# Installs azure-cli from PyPI and prints the path of its Python interpreter.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../python.sh" "$here/requirements.txt" "azure-cli's parser"
