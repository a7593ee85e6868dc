#!/usr/bin/env bash
# Makes a Python environment with Microsoft's own clients and prints the path of its interpreter.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../../../tools/python.sh" "$here/requirements.txt" "Microsoft's Python clients"
