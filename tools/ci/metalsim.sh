#!/usr/bin/env bash
# tools/ci/metalsim.sh [OUT]: the Metal engine on a simulated Mac: its C++ tests, and every kernel without its barriers.
#
# Leaves the package with device="metal" in OUT/python, for tools/ci/devices.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/simulated-mac}

pip install --quiet --upgrade 'pip>=25.1'  # the first that knows --group
# With what the package imports: it is not installed itself.
pip install --quiet --group cpp 'pytest>=8' huggingface_hub numpy pyloudnorm sentencepiece soundfile soxr tqdm
eval "$(tools/simulated_mac.sh "$out")"
jobs=$(nproc)
python tests/python/kernel_mutants.py --jobs "$jobs"
ctest --test-dir "$out/build" --output-on-failure --parallel "$jobs" -R metal
