#!/usr/bin/env bash
# tools/ci/test.sh: the README's test command, word for word.
set -euo pipefail
cd "$(dirname "$0")/../.."

pip install '.[test]' && pytest
