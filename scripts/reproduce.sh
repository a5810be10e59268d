#!/usr/bin/env bash
# The whole study from one command: environment, checkpoints, four experiments, report.
#
#     bash scripts/reproduce.sh                 the miniature: minutes on two CPU cores
#     bash scripts/reproduce.sh STUDY.yaml      a study of your own
#
# Other arguments (--device, --runs, --results) are handed to every step. Stopped at any moment, it goes on where it was.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
make_environment run

"$PYTHON" "$ROOT/scripts/finetune.py" "$@"
"$PYTHON" "$ROOT/scripts/projection.py" "$@"
"$PYTHON" "$ROOT/exp-3-update_spaces/update_spaces.py" "$@"
"$PYTHON" "$ROOT/exp-4-activation_spaces/activation_space.py" "$@"
"$PYTHON" "$ROOT/scripts/report.py" "$@"
