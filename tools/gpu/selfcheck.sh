#!/usr/bin/env bash
# tools/gpu/selfcheck.sh: the CUDA queue on a real GPU.
#
#   selfcheck.sh build    a program that needs no more than the system's C library, in .gpu/
#   selfcheck.sh run      on the machine with the GPU; builds there when the program does not start
#
# PERSONAPLEX_NVRTC names the folder of libnvrtc.so; otherwise that of the nvidia-cuda-nvrtc package of python3, or
# CUDA's own. MEMCHECK=1 repeats the run under compute-sanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
program=.gpu/cuda_selfcheck

build() {
  mkdir -p .gpu
  "${CXX:-g++}" -std=c++20 -O2 -static-libstdc++ -static-libgcc -Icsrc tools/gpu/cuda_selfcheck.cpp csrc/gpu/cuda_*.cpp \
    -ldl -o "$program"
}

find_nvrtc() {
  python3 - <<'PYTHON' 2>/dev/null || true
import pathlib
import nvidia

found = [p for root in nvidia.__path__ for p in pathlib.Path(root).glob("*/lib/libnvrtc.so.*")]
print(max(found).parent if found else "")
PYTHON
}

run() {
  local status=0
  "$program" >/dev/null 2>&1 || status=$?
  [ "$status" = 2 ] || build # 2: it asks for arguments
  cache=$(mktemp -d)
  trap 'rm -rf "$cache"' EXIT
  local nvrtc=${PERSONAPLEX_NVRTC:-$(find_nvrtc)}
  [ -n "$nvrtc" ] || nvrtc=$(find /usr/local/cuda*/lib64 -maxdepth 0 2>/dev/null | tail -1)
  echo "NVRTC in ${nvrtc:-no known folder}"
  "$program" tools/gpu/selfcheck.cu "$cache" "$nvrtc"
  if [ "${MEMCHECK:-0}" = 1 ]; then
    compute-sanitizer --tool memcheck "$program" tools/gpu/selfcheck.cu "$cache" "$nvrtc" memcheck | tail -40
  fi
}

case "${1:-}" in
  build) build ;;
  run) run ;;
  *) sed -n '2,8p' "$0" && exit 2 ;;
esac
