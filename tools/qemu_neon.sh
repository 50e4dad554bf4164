#!/usr/bin/env bash
# tools/qemu_neon.sh: cross-compiles the CPU operations and their tests for aarch64 and runs them under qemu.
#
#   tools/qemu_neon.sh [doctest options]
#
# Needs aarch64-linux-gnu-g++, qemu-aarch64-static and doctest's header (Debian: apt install g++-aarch64-linux-gnu
# qemu-user-static doctest-dev), or CXX, QEMU and DOCTEST_INCLUDE. Compiled are csrc/cpu, csrc/ops and what they need,
# nothing of which needs MLX, with tests/cpp/test_cpu*.cpp and test_ops_cases.cpp. Without options everything runs but
# the operations of full size, which are too slow for that. JOBS (default: all cores) compilers run at a time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CXX=${CXX:-aarch64-linux-gnu-g++}
qemu=${QEMU:-qemu-aarch64-static}
include=${DOCTEST_INCLUDE:-/usr/include}
for tool in "$CXX" "$qemu"; do
  command -v "$tool" > /dev/null || { echo "qemu_neon.sh: $tool not found." >&2; exit 1; }
done
if [[ ! -f $include/doctest/doctest.h ]]; then
  echo "qemu_neon.sh: no doctest/doctest.h in $include; set DOCTEST_INCLUDE." >&2
  exit 1
fi

BUILD=$(mktemp -d)
export BUILD
trap 'rm -rf "$BUILD"' EXIT
mkdir "$BUILD/include"  # doctest alone: the rest of the host's headers must not be seen
ln -s "$(realpath "$include")/doctest" "$BUILD/include/doctest"

compile() { "$CXX" -std=c++20 -O2 -Wall -Wextra -Icsrc -isystem "$BUILD/include" -c "$1" -o "$BUILD/${1//\//_}.o"; }
export -f compile
sources=(csrc/cpu/*.cpp csrc/ops/*.cpp csrc/checkpoint/{config,config_check,json,tensor,to_floats}.cpp
  tests/cpp/{main,test_cpu*,test_ops_cases}.cpp)
# shellcheck disable=SC2016  # $1 is for the inner shell
printf '%s\n' "${sources[@]}" | xargs -P "${JOBS:-$(nproc)}" -I{} bash -c 'compile "$1"' _ {}
"$CXX" -static "$BUILD"/*.o -o "$BUILD/tests" -pthread
if [[ $# = 0 ]]; then set -- --test-case-exclude='*7B frame*'; fi
"$qemu" "$BUILD/tests" "$@"
