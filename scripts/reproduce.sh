#!/usr/bin/env bash
# The whole study from one command: environment, checkpoints, four experiments, report.
#
#     bash scripts/reproduce.sh                      the miniature: minutes on two CPU cores
#     bash scripts/reproduce.sh STUDY.yaml           a study of your own; several, one after the other
#     bash scripts/reproduce.sh configs/miniature{,-dpo,-safety-tuned,-appendices}.yaml     all of the paper
#     bash scripts/reproduce.sh [STUDY.yaml] --plan  what it will take; does nothing
#
# --device, --runs DIR and --results DIR are handed to every step. Stopped at any moment, it goes on where it was.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

studies=() options=() plan=
for argument in "$@"; do
    case "$argument" in
        -h | --help) sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed 1d; exit 0 ;;
        --plan) plan=1; options+=("$argument") ;;
        *.yaml | *.yml) studies+=("$argument") ;;
        *) options+=("$argument") ;;
    esac
done
[ ${#studies[@]} -gt 0 ] || studies=("$ROOT/configs/miniature.yaml")

make_environment
for study in "${studies[@]}"; do
    if [ -n "$plan" ]; then
        "$PYTHON" "$ROOT/scripts/projection.py" "$study" ${options[@]+"${options[@]}"}
        continue
    fi
    for step in scripts/finetune scripts/projection exp-3-update_spaces/update_spaces \
        exp-4-activation_spaces/activation_space scripts/report; do
        "$PYTHON" "$ROOT/$step.py" "$study" ${options[@]+"${options[@]}"}
    done
done
