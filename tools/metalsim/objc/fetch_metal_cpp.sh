#!/usr/bin/env bash
# tools/metalsim/objc/fetch_metal_cpp.sh FOLDER: puts metal-cpp's headers into FOLDER/mlx/include/metal_cpp, and prints
# that path. They come in MLX's wheel for macOS, from the package index that pip is set up for ($PYTHON, or python3).
set -euo pipefail
folder=${1:?usage: fetch_metal_cpp.sh FOLDER}
python=${PYTHON:-python3}
headers=$folder/mlx/include/metal_cpp
if [ ! -e "$headers/Metal/Metal.hpp" ]; then
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --platform macosx_14_0_arm64 --dest "$wheels" mlx-metal==0.32.4 >&2
  "$python" - "$wheels" "$folder" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

wheels, folder = sys.argv[1:]
with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
    wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith("mlx/include/metal_cpp/")])
PYTHON
fi
echo "$headers"
