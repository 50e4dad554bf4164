#!/usr/bin/env bash
# tools/ci/venv.sh DIR: a fresh virtual environment in DIR, of $PYTHON or of the first Python >= 3.10 found.
set -euo pipefail

for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3}; do
  if "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
    "$python" -m venv --clear "$1"
    "$1/bin/python" -m pip install --quiet --upgrade pip
    exit
  fi
done
echo "tools/ci/venv.sh: found no Python >= 3.10 with the venv module" >&2
exit 1
