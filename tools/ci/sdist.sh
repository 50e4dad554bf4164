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
# The model that ships: all of it, within its 12 MB. What the wheel holds is compared by tests/python/test_package.py.
tiny=python/personaplex/tiny
[ -e "$source/$tiny/config.json" ] || { echo "tools/ci/sdist.sh: $tiny holds no model" >&2; exit 1; }
diff -r "$tiny" "$source/$tiny" || { echo "tools/ci/sdist.sh: $tiny is not in the archive as it is here" >&2; exit 1; }
bytes=$(($(find "$source/$tiny" -type f -exec cat {} + | wc -c)))
[ "$bytes" -le 12000000 ] || { echo "tools/ci/sdist.sh: $tiny has $bytes bytes, more than 12 MB" >&2; exit 1; }
cmake -S "$source" -B "$out/build" -DPython_EXECUTABLE="$(command -v python)" -DPERSONAPLEX_TESTS=ON
python -I "$source/tools/embed_kernels.py" --compiler c++ --out "$out/kernels"
