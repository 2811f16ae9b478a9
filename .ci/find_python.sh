#!/usr/bin/env bash
# Prints the path of a CPython >= 3.12 that can make a virtual environment, or says where it looked.
#
#   .ci/find_python.sh [python]      with an argument: that one, or an error
#
# A name on the PATH proves nothing: pyenv's shims exist for every version somebody once installed,
# and Debian ships a python3 without ensurepip. So each candidate is run before it is taken.
set -u

NAMES=(python3.14 python3.13 python3.12 python3 python)
PROBE='
import ensurepip, ssl, sys, venv
usable = sys.version_info >= (3, 12) and sys.version_info.releaselevel == "final"
if usable and sys.implementation.name == "cpython":
    print(sys.executable)
'
looked_at=()

# take CANDIDATE: prints the interpreter behind it and ends the script, if it will do.
take() {
    local found version
    found=$("$1" -c "$PROBE" 2>/dev/null)
    if [ -n "$found" ]; then
        printf '%s\n' "$found"
        exit 0
    fi
    version=$("$1" --version 2>&1 | grep -m 1 '^Python ')
    looked_at+=("$1: ${version:-does not run}")
}

fail() {
    {
        echo "$1"
        [ ${#looked_at[@]} -eq 0 ] || printf '  %s\n' "${looked_at[@]}"
        echo "Install one (pyenv install 3.13, uv python install 3.13, apt install python3.12-venv)"
        echo "or name it: make test PYTHON=/path/to/python3.12"
    } >&2
    exit 1
}

if [ -n "${1:-}" ]; then
    take "$1"
    fail "PYTHON=$1 is not a CPython >= 3.12 with venv, ensurepip and ssl:"
fi

for name in "${NAMES[@]}"; do
    # Not only the first on the PATH: a dead shim may stand before the real one.
    while IFS= read -r candidate; do
        take "$candidate"
    done < <(type -aP "$name" | awk '!seen[$0]++')
done

pyenv=${PYENV_ROOT:-$HOME/.pyenv}
while IFS= read -r candidate; do
    [ ! -x "$candidate" ] || take "$candidate"
done < <(printf '%s\n' "$pyenv"/versions/3.*/bin/python | sort -rV)

if command -v uv >/dev/null 2>&1; then
    candidate=$(uv python find --no-project '>=3.12' 2>/dev/null)
    [ -z "$candidate" ] || take "$candidate"
fi

fail "No CPython >= 3.12 with venv, ensurepip and ssl. Looked for ${NAMES[*]} on the PATH, for
$pyenv/versions/3.*/bin/python and with \`uv python find\`, and found only:"
