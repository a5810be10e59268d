# Sourced by the other scripts: finds the Python of this clone, and makes its environment where that is asked for.
# Sets ROOT (the clone), ENVIRONMENT ($VENV, else .venv in the clone) and PYTHON.

ROOT="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
ENVIRONMENT="${VENV:-$ROOT/.venv}"
# The scripts change directory, so a relative path would soon mean another folder.
case "$ENVIRONMENT" in /*) ;; *) ENVIRONMENT="$PWD/$ENVIRONMENT" ;; esac

fail() {
    echo "error: $1" >&2
    exit 2
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

has_requirements() {
    is_new_enough "$1" && "$1" -c 'import sys; from importlib.util import find_spec
sys.exit(not all(map(find_spec, sys.argv[1:])))' torch transformers trl pydantic matplotlib
}

# find_python: the Python of $VENV, else that of .venv in the clone, else an active one that has the requirements.
find_python() {
    local candidates=("$ENVIRONMENT/bin/python")
    [ -n "${VENV:-}" ] || candidates+=("${VIRTUAL_ENV:-}/bin/python" "${CONDA_PREFIX:-}/bin/python" python3 python)
    for PYTHON in "${candidates[@]}"; do
        ! has_requirements "$PYTHON" || return 0
    done
    fail "$ENVIRONMENT: expected a Python with the requirements, found none; run: python3 -m venv '$ENVIRONMENT' && '$ENVIRONMENT/bin/python' -m pip install -r '$ROOT/requirements.txt'${VENV:+ (or name another with VENV=DIR)}"
}

# make_environment [test]: make the environment if it is not there, and install the requirements, with those of the
# tests if asked for, unless exactly this clone and these requirements are installed already. An active environment is
# somebody's own: nothing is installed there.
make_environment() {
    PYTHON="$ENVIRONMENT/bin/python"
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
        local maker
        for maker in python3 python python3.14 python3.13 python3.12 python3.11 ''; do
            ! is_new_enough "$maker" || break
        done
        [ -n "$maker" ] || fail "expected Python 3.11 or newer, got $(python3 --version 2>&1); install it, or name an environment with VENV=DIR"
        "$maker" -m venv "$ENVIRONMENT" || fail "$ENVIRONMENT: no environment could be made there; name one with VENV=DIR"
    fi
    is_new_enough "$PYTHON" ||
        fail "expected Python 3.11 or newer, got $("$PYTHON" --version 2>&1) in $ENVIRONMENT; name another environment with VENV=DIR"
    local stamp="$ENVIRONMENT/.safety-spaces" content installed
    content="$(cat "$ROOT/requirements.txt" "$ROOT/pyproject.toml" | cksum)"
    installed="$(cat "$stamp" 2>/dev/null || true)"
    [ "$installed" = "$ROOT $content test" ] && return
    [ "$installed" = "$ROOT $content" ] && [ "${1:-}" != test ] && return
    echo "installing into $ENVIRONMENT" >&2
    rm -f "$stamp"
    (cd "$ROOT" && "$PYTHON" -m pip install --quiet -r requirements.txt)
    [ "${1:-}" != test ] || (cd "$ROOT" && "$PYTHON" -m pip install --quiet -e ".[test]")
    echo "$ROOT $content${1:+ $1}" > "$stamp"
}
