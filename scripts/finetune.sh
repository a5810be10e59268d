#!/usr/bin/env bash
# Fine-tuning: the checkpoints of a study. `bash scripts/finetune.sh --help` says more.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
find_python
exec "$PYTHON" "$ROOT/scripts/finetune.py" "$@"
