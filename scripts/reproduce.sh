#!/usr/bin/env bash
# The whole study from one command: environment, checkpoints, four experiments, report.
#
#     bash scripts/reproduce.sh                      the miniature: minutes on two CPU cores
#     bash scripts/reproduce.sh STUDY.yaml           a study of your own; several, one after the other
#     bash scripts/reproduce.sh configs/miniature{,-dpo,-safety-tuned,-appendices}.yaml     all of the paper
#     bash scripts/reproduce.sh [STUDY.yaml] --plan  what it will take; does and installs nothing
#
# The environment is .venv in the clone, or VENV=DIR. --download fetches what is on the hub and does nothing else; --device,
# --runs DIR and --results DIR are handed to every step. Stopped at any moment, it goes on where it was.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

studies=() options=() ahead=
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed 1d; exit 0 ;;
        --plan | --download) ahead=$1 ;;
        --device | --runs | --results)
            [ $# -gt 1 ] || fail "$1: expected a value behind it, got none"
            options+=("$1" "$2")
            shift ;;
        --device=* | --runs=* | --results=*) options+=("$1") ;;
        -*) fail "$1: expected --plan, --download, --device, --runs or --results; correct it" ;;
        *)
            [ -f "$1" ] || fail "$1: expected a study file, found none; correct its path"
            studies+=("$1") ;;
    esac
    shift
done
[ ${#studies[@]} -gt 0 ] || studies=("$ROOT/configs/miniature.yaml")

if [ "$ahead" = --plan ]; then find_python; else make_environment; fi
for study in "${studies[@]}"; do
    if [ -n "$ahead" ]; then
        "$PYTHON" "$ROOT/scripts/projection.py" "$study" "$ahead" ${options[@]+"${options[@]}"}
        continue
    fi
    for step in scripts/finetune scripts/projection exp-3-update_spaces/update_spaces \
        exp-4-activation_spaces/activation_space scripts/report; do
        "$PYTHON" "$ROOT/$step.py" "$study" ${options[@]+"${options[@]}"}
    done
done
