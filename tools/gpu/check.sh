#!/usr/bin/env bash
# tools/gpu/check.sh: what only a machine with an NVIDIA GPU can show; the package with its extras cuda and test installed.
#
#   check.sh golden     every golden model at 16, 8 and 4 bits on device="cuda", and tests/python/test_cuda.py
#   check.sh sanitize   the smallest one, and frames of a small random model, under compute-sanitizer's memcheck and
#                       racecheck
#   check.sh speed      frames of a 7B model with random weights: 4, 8 and 16 bits, contexts of 250 and 2990, also at the
#                       pace of a conversation, beside the graph engine where MLX has CUDA; saved as bench/results/$NAME
#   check.sh soak       30 minutes' worth of frames of it, without pauses: times and memory
#
# Without arguments all of them, about 10 minutes. Exit status 0: everything is as it should be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}

golden() {
  local bits model
  for model in tests/golden/data/*; do
    for bits in 16 8 4; do
      echo "== $model at $bits bits"
      "$python" tests/golden/check.py "$model" --engine fused --device cuda --bits "$bits"
    done
  done
  "$python" -m pytest -q tests/python/test_cuda.py
}

# The kernels' number of parameters is found by asking for one too many: such errors of the API are not reported.
sanitize() {
  local tool
  for tool in memcheck racecheck; do
    echo "== $tool"
    compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 \
      "$python" tests/golden/check.py tests/golden/data/nano --engine fused --device cuda --bits 4 --chunk 8
    compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 \
      "$python" bench/step_latency.py --random tiny --device cuda --bits 4 --context 40 --rounds 1 --frames 2
  done
}

speed() {
  local bits save=(--save "${NAME:-gpu-fused}")
  for bits in 4 8 16; do
    "$python" bench/step_latency.py --random 7b --device cuda --bits "$bits" --context 250 "${save[@]}"
    "$python" bench/step_latency.py --random 7b --device cuda --bits "$bits" --context 2990 "${save[@]}"
  done
  "$python" bench/step_latency.py --random 7b --device cuda --bits 4 --context 250 --paced "${save[@]}"
  if "$python" -c "import mlx.core as mx; raise SystemExit(not mx.cuda.is_available())"; then
    "$python" bench/step_latency.py --random 7b --device cuda --bits 4 --context 250 --compare graph
  fi
}

soak() { "$python" bench/proofs.py soak --model random:7b --bits 4 --device cuda --frames 22500; }

if [ $# -eq 0 ]; then set -- golden sanitize speed soak; fi
for step in "$@"; do
  case $step in
    golden | sanitize | speed | soak) "$step" ;;
    *)
      echo "check.sh: expected golden, sanitize, speed or soak, got '$step'." >&2
      exit 2
      ;;
  esac
done
