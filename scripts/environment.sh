# Sourced by the other scripts: finds the Python of this clone, and makes its environment where that is asked for.
# Sets ROOT (the clone) and PYTHON. The environment is $VENV, else the active one, else .venv in the clone.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

find_environment() {
    ENVIRONMENT="${VENV:-${VIRTUAL_ENV:-${CONDA_PREFIX:-$ROOT/.venv}}}"
    PYTHON="$ENVIRONMENT/bin/python"
}

# For commands typed after `pip install -r requirements.txt`: any Python that has the project will do.
find_python() {
    find_environment
    [ -x "$PYTHON" ] || PYTHON="$(command -v python3 || command -v python)" || {
        echo "error: expected Python 3.11 or newer, found none; install it, or name an environment with VENV=DIR" >&2
        exit 2
    }
}

# make_environment FILE...: install each requirements file or extra unless this very content is installed already.
make_environment() {
    find_environment
    local stamp wanted
    if [ ! -x "$PYTHON" ]; then
        local system
        system="$(command -v python3 || command -v python)" || {
            echo "error: expected Python 3.11 or newer, found none; install it" >&2
            exit 2
        }
        "$system" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "error: expected Python 3.11 or newer, got $("$system" --version 2>&1); install it, or name an environment with VENV=DIR" >&2
            exit 2
        }
        "$system" -m venv "$ENVIRONMENT"
    fi
    stamp="$ENVIRONMENT/.safety-spaces-$1"
    # The clone is part of the stamp: an environment shared by two clones has the code of one of them.
    wanted="$ROOT $(cat "$ROOT/requirements.txt" "$ROOT/pyproject.toml" | cksum)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing into $ENVIRONMENT" >&2
        if [ "$1" = test ]; then
            (cd "$ROOT" && "$PYTHON" -m pip install --quiet -r requirements.txt && "$PYTHON" -m pip install --quiet -e ".[test]")
        else
            (cd "$ROOT" && "$PYTHON" -m pip install --quiet -r requirements.txt)
        fi
        echo "$wanted" > "$stamp"
    fi
}
