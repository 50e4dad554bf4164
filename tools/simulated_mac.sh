#!/usr/bin/env bash
# tools/simulated_mac.sh OUT: builds this package for the simulated Mac of tools/metalsim/objc: device="metal" on Linux.
#
# OUT/python is for PYTHONPATH, OUT/build has the C++ tests. What it prints sets the environment:
#
#   eval "$(tools/simulated_mac.sh OUT)" && python tests/golden/check.py DIR --engine fused --device metal
#
# Needs Linux on x86-64 with clang-19, doctest and ninja (tools/ci/system.sh), and a Python ($PYTHON, or python) with
# numpy and the dependency group `cpp` (pip install --group cpp numpy). Links into this checkout: Python files count at
# once when they change, C++ files and kernels after the same command again.
set -euo pipefail
out=$(realpath -m "${1:?usage: tools/simulated_mac.sh OUT}")
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python}")
clang=$(command -v "${METALSIM_CLANG:-clang++-19}") || { echo "tools/simulated_mac.sh: clang++-19 is missing" >&2; exit 1; }

{
  headers=$(PYTHON=$python tools/metalsim/objc/fetch_metal_cpp.sh "$out/metal-cpp")
  # Half the time to compile; the CPU's kernels are not what is tested here.
  cmake -G Ninja -S . -B "$out/build" -DCMAKE_CXX_COMPILER="$clang" -DPython_EXECUTABLE="$python" \
    -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" -DPERSONAPLEX_TESTS=ON -DPERSONAPLEX_WERROR=ON \
    -DPERSONAPLEX_METALSIM=ON -DPERSONAPLEX_METAL_CPP="$headers"
  cmake --build "$out/build" --target _core personaplex_metal_tests
  mkdir -p "$out/python/personaplex"
  ln -sfn "$PWD"/python/personaplex/* "$out"/build/_core.*.so "$out/build/_build_info.py" "$out/python/personaplex/"
  # Both must lie side by side.
  ln -sfn "$("$python" -c 'import importlib.util as u; print(u.find_spec("mlx").submodule_search_locations[0])')" \
    "$out/python/mlx"
} >&2

cat <<EOF
export PYTHONPATH='$out/python' METALSIM_PYTHON='$python'
# METALSIM_CHECK=1: all checks; METALSIM_ORDER=reverse: backwards between barriers; more in tools/metalsim/objc/README.md
EOF
