#!/usr/bin/env bash
# Everything that must hold before a change lands: style, types, walls, tests.
#
#     bash scripts/test.sh                  all of it
#     bash scripts/test.sh -m "not slow"    with arguments for pytest
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
case "${1:-}" in -h | --help) sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed 1d; exit 0 ;; esac
make_environment test
cd "$ROOT"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" -c 'from importlinter.cli import lint_imports_command as lint; lint()'
"$PYTHON" -m pytest --numprocesses 2 "$@"
