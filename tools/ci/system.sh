#!/usr/bin/env bash
# tools/ci/system.sh: installs the system packages that building and testing need, where there is apt-get or brew.
set -euo pipefail

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

if command -v apt-get >/dev/null; then
  missing=()
  for package in cmake doctest-dev g++ git ninja-build python3-dev python3-venv; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  # For tools/metalsim; without it the tests of the GPU kernels say why they are skipped.
  command -v clang++-19 >/dev/null || missing+=(clang-19 llvm-19)
  if [ ${#missing[@]} -gt 0 ]; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  fi
elif command -v brew >/dev/null; then
  brew install --quiet cmake doctest ninja
fi
for program in c++ cmake git; do
  command -v "$program" >/dev/null || { echo "tools/ci/system.sh: $program is missing" >&2; exit 1; }
done
