#!/usr/bin/env bash
# tools/ci/sanitize.sh [BUILD_DIR]: the C++ tests under ASan and UBSan, built with warnings as errors.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/sanitize}

pip install --quiet --upgrade 'pip>=25.1'  # the first that knows --group
pip install --quiet --group cpp
cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE="$(command -v python)" \
  -DPERSONAPLEX_MODULE=OFF -DPERSONAPLEX_TESTS=ON -DPERSONAPLEX_WERROR=ON -DPERSONAPLEX_SANITIZE=address,undefined
cmake --build "$build"

# No leak check: MLX keeps its threads, streams and caches until the process ends.
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 "$build/personaplex_tests"
