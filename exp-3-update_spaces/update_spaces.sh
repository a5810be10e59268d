#!/usr/bin/env bash
# Subspaces of weight updates. `bash exp-3-update_spaces/update_spaces.sh --help` says more.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/environment.sh"
find_python
exec "$PYTHON" "$ROOT/exp-3-update_spaces/update_spaces.py" "$@"
