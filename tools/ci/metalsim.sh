#!/usr/bin/env bash
# tools/ci/metalsim.sh [OUT]: the Metal engine on a simulated Mac: its C++ tests, and every kernel without its barriers.
#
# Leaves the package with device="metal" in OUT/python, for tools/ci/devices.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/simulated-mac}

pip install --quiet --upgrade 'pip>=25.1'  # the first that knows --group
pip install --quiet --group cpp 'numpy>=1.24' 'pytest>=8'
eval "$(tools/simulated_mac.sh "$out")"
jobs=$(nproc)
python tests/python/kernel_mutants.py --jobs "$jobs"
ctest --test-dir "$out/build" --output-on-failure --parallel "$jobs" -R metal
