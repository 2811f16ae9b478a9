#!/usr/bin/env bash
# Makes or renews a virtual environment with this project in it, editable; does nothing where it is
# up to date.
#
#   .ci/venv.sh DIRECTORY EXTRAS [DJANGO] [PYTHON]
#
# DIRECTORY  .venv, or .venv-6.0 for another Django
# EXTRAS     extras of pyproject.toml, separated by commas: "test,lint"
# DJANGO     a series such as 6.0; nothing for the newest that pyproject.toml allows
# PYTHON     the interpreter; nothing for the one that find_python.sh finds
#
# The stamp holds what decides about the content, so neither a touched file nor a fresh clone's
# timestamps cause or hide an installation. `make test` after `make demo` adds to the environment;
# only another PYTHON makes it anew.
set -eu

directory=$1 extras=$2 django=${3:-} python=${4:-}
cd "$(dirname "$0")/.."

stamp=$directory/.installed
inputs="pyproject=$(cksum <pyproject.toml | tr ' ' -) django=$django root=$PWD"
touch_up=
for extra in ${extras//,/ }; do
    grep -qsxF "$inputs extra=$extra" "$stamp" || touch_up=yes
done

if [ -n "$python" ] || [ ! -x "$directory/bin/python" ] || [ ! -f "$stamp" ]; then
    interpreter=$(.ci/find_python.sh "$python")
    if ! grep -qsxF "python=$interpreter" "$stamp"; then
        echo "$directory: $interpreter ($("$interpreter" --version))"
        rm -rf "$directory"
        "$interpreter" -m venv "$directory"
        echo "python=$interpreter" >"$stamp"
        touch_up=yes
    fi
fi
[ -n "$touch_up" ] || exit 0

packages=(--editable ".[$extras]")
[ -z "$django" ] || packages+=("Django~=$django.0")
echo "$directory: installing ${packages[*]}"
"$directory/bin/python" -m pip install -qq --disable-pip-version-check "${packages[@]}"

{
    awk -v inputs="$inputs extra=" 'index($0, "python=") == 1 || index($0, inputs) == 1' "$stamp"
    for extra in ${extras//,/ }; do
        echo "$inputs extra=$extra"
    done
} | awk '!seen[$0]++' >"$stamp.new"
mv "$stamp.new" "$stamp"
