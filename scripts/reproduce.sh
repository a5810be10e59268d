#!/usr/bin/env bash
# The whole study from one command: environment, checkpoints, four experiments, report.
#
#     bash scripts/reproduce.sh                  the miniature: minutes on two CPU cores
#     bash scripts/reproduce.sh STUDY.yaml       a study of your own
#     bash scripts/reproduce.sh --plan           what it will take; does nothing
#
# --device, --runs DIR and --results DIR are handed to every step. Stopped at any moment, it goes on where it was.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

for argument in "$@"; do
    case "$argument" in
        -h | --help) sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed 1d; exit 0 ;;
        --plan) make_environment; exec "$PYTHON" "$ROOT/scripts/projection.py" "$@" ;;
    esac
done

make_environment
"$PYTHON" "$ROOT/scripts/finetune.py" "$@"
"$PYTHON" "$ROOT/scripts/projection.py" "$@"
"$PYTHON" "$ROOT/exp-3-update_spaces/update_spaces.py" "$@"
"$PYTHON" "$ROOT/exp-4-activation_spaces/activation_space.py" "$@"
"$PYTHON" "$ROOT/scripts/report.py" "$@"
