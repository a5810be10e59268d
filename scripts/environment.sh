# Sourced by the other scripts: finds the Python of this clone, and makes its environment where that is asked for.
# Sets ROOT (the clone), ENVIRONMENT ($VENV, else the active one, else .venv in the clone) and PYTHON.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() {
    echo "error: $1" >&2
    exit 2
}

find_environment() {
    ENVIRONMENT="${VENV:-${VIRTUAL_ENV:-${CONDA_PREFIX:-$ROOT/.venv}}}"
    # The scripts change directory, so a relative path would soon mean another folder.
    case "$ENVIRONMENT" in /*) ;; *) ENVIRONMENT="$PWD/$ENVIRONMENT" ;; esac
    PYTHON="$ENVIRONMENT/bin/python"
}

# For commands typed after `pip install -r requirements.txt`: any Python that has the project will do.
find_python() {
    find_environment
    [ -x "$PYTHON" ] || PYTHON="$(command -v python3 || command -v python)" ||
        fail "expected Python 3.11 or newer, found none; install it, or name an environment with VENV=DIR"
}

check_version() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "expected Python 3.11 or newer, got $("$1" --version 2>&1); install it, or name an environment with VENV=DIR"
}

# make_environment [test]: make the environment if it is not there, and install the requirements, with those of the
# tests if asked for, unless exactly this clone and these requirements are installed already.
make_environment() {
    find_environment
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
        find_python
        check_version "$PYTHON"
        "$PYTHON" -m venv "$ENVIRONMENT" || fail "$ENVIRONMENT: no environment could be made there; name one with VENV=DIR"
        find_environment
    fi
    check_version "$PYTHON"
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
