#!/usr/bin/env bash
# tools/ci/sanitize.sh [BUILD_DIR [SANITIZERS [OPTION...]]]: the C++ tests under sanitizers (ASan and UBSan), warnings
# as errors.
#
# SANITIZERS: as in -fsanitize, such as thread. OPTION: of doctest; for the pool and the fused engine's sessions in
# several threads (libmlx is not instrumented, so ThreadSanitizer sees races in every use of the graph engine)
#
#   tools/ci/sanitize.sh build/thread thread -tc='*pool*,*threads*'
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/sanitize}
sanitizers=${2:-address,undefined}

pip install --quiet --upgrade 'pip>=25.1'  # the first that knows --group
pip install --quiet --group cpp
cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE="$(command -v python)" \
  -DPERSONAPLEX_MODULE=OFF -DPERSONAPLEX_TESTS=ON -DPERSONAPLEX_WERROR=ON -DPERSONAPLEX_SANITIZE="$sanitizers"
cmake --build "$build"

# No leak check: MLX keeps its threads, streams and caches until the process ends.
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 "$build/personaplex_tests" "${@:3}"
