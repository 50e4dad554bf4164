#!/usr/bin/env bash
# tools/gpu/selfcheck.sh: the CUDA queue on a real GPU.
#
#   selfcheck.sh build      programs that need no more than the system's C library, in .gpu/
#   selfcheck.sh run        on the machine with the GPU: cuda_selfcheck; builds there when the program does not start
#   selfcheck.sh products   the same for cuda_products: speed of the language model's products
#
# PERSONAPLEX_NVRTC names the folder of libnvrtc.so; otherwise that of the nvidia-cuda-nvrtc package of python3, or
# CUDA's own. MEMCHECK=1 repeats `run` under compute-sanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
compile() {
  mkdir -p .gpu
  "${CXX:-g++}" -std=c++20 -O2 -static-libstdc++ -static-libgcc -pthread -Icsrc "tools/gpu/$1.cpp" csrc/gpu/cuda_*.cpp \
    "${@:2}" -ldl -o ".gpu/$1"
}

build() {
  compile cuda_selfcheck
  python3 tools/embed_kernels.py --compiler "${CXX:-g++}" --out .gpu/kernels kernels/lm_product.metal kernels/cuda/*.cu
  compile cuda_products .gpu/kernels/cuda_sources.cpp
}

find_nvrtc() {
  python3 - <<'PYTHON' 2>/dev/null || true
import pathlib
import nvidia

found = [p for root in nvidia.__path__ for p in pathlib.Path(root).glob("*/lib/libnvrtc.so.*")]
print(max(found).parent if found else "")
PYTHON
}

# prepare PROGRAM [SOURCE]: sets `cache` and `nvrtc`.
prepare() {
  local status=0
  ".gpu/$1" >/dev/null 2>&1 || status=$?
  [ "$status" = 2 ] || compile "$@" # 2: it asks for arguments
  cache=$(mktemp -d)
  trap 'rm -rf "$cache"' EXIT
  nvrtc=${PERSONAPLEX_NVRTC:-$(find_nvrtc)}
  [ -n "$nvrtc" ] || nvrtc=$(find /usr/local/cuda*/lib64 -maxdepth 0 2>/dev/null | tail -1)
  echo "NVRTC in ${nvrtc:-no known folder}"
}

run() {
  prepare cuda_selfcheck
  .gpu/cuda_selfcheck tools/gpu/selfcheck.cu "$cache" "$nvrtc"
  if [ "${MEMCHECK:-0}" = 1 ]; then
    compute-sanitizer --tool memcheck .gpu/cuda_selfcheck tools/gpu/selfcheck.cu "$cache" "$nvrtc" memcheck | tail -40
  fi
}

products() {
  prepare cuda_products .gpu/kernels/cuda_sources.cpp
  .gpu/cuda_products "$cache" "$nvrtc" 1 8 32
}

case "${1:-}" in
  build) build ;;
  run) run ;;
  products) products ;;
  *) sed -n '2,9p' "$0" && exit 2 ;;
esac
