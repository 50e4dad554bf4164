#!/usr/bin/env bash
# tools/ci/devices.sh [FOLDER]: golden check and frame times on the CPU and, where there is one, on Metal.
#
# Of the installed package; or of the one that tools/simulated_mac.sh has made, in FOLDER or where tools/ci/metalsim.sh
# leaves it: there Metal runs with all checks, forward and in reverse between barriers.
set -euo pipefail
cd "$(dirname "$0")/../.."
simulated=${1:-build/simulated-mac/python}
if [ -e "$simulated" ]; then
  PYTHONPATH=$(realpath "$simulated")
  METALSIM_PYTHON=$(command -v python)
  export PYTHONPATH METALSIM_PYTHON
fi
golden() { python tests/golden/check.py tests/golden/data/nano --engine fused "$@"; }
latency() { python bench/step_latency.py --random tiny "$@"; }

for bits in 16 8 4; do
  echo "golden check, CPU, $bits bits"
  golden --device cpu --bits "$bits"
done
latency --device cpu

try='import personaplex._core as c; c.Model("random:tiny", device="metal", engine="fused")'
if ! why=$(python -c "$try" 2>&1); then  # a virtual machine's GPU, for example, is too old a kind
  echo "Metal was NOT checked, the CPU engine works: ${why##*$'\n'}"
  exit
fi

if [ ! -e "$simulated" ]; then
  for bits in 16 8 4; do
    echo "golden check, Metal, $bits bits"
    golden --device metal --bits "$bits"
  done
  latency --device metal --engine fused
  latency --device metal --engine graph
  exit
fi

for bits in 16 8 4; do
  for order in forward reverse; do
    METALSIM_CHECK=1 METALSIM_ORDER=$order golden --device metal --bits "$bits" --depformer-steps 8 --chunk 8 |
      sed "s/^/Metal, $bits bits, $order: /" &
  done
  wait -n
  wait -n
done
latency --device metal --engine fused --context 40 --rounds 1 --frames 2 --warmup 1
