#!/usr/bin/env bash
# tools/ci/sdist.sh: makes the source archive and configures a build from nothing but its content.
set -euo pipefail
cd "$(dirname "$0")/../.."

pip install --quiet --upgrade 'pip>=25.1'  # the first that knows --group
pip install --quiet --group cpp
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
python -m build --sdist --outdir "$out" .
tar -xzf "$out"/personaplex-*.tar.gz -C "$out"
source=$(echo "$out"/personaplex-*/)
for file in LICENSE README.md examples/question.wav kernels/lm_product.metal python/personaplex/_core.pyi tests/python/conftest.py tools/embed_kernels.py; do
  [ -e "$source/$file" ] || { echo "tools/ci/sdist.sh: $file is not in the archive" >&2; exit 1; }
done
cmake -S "$source" -B "$out/build" -DPython_EXECUTABLE="$(command -v python)" -DPERSONAPLEX_TESTS=ON
python -I "$source/tools/embed_kernels.py" --compiler c++ --out "$out/kernels"
