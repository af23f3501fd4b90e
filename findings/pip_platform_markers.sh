#!/usr/bin/env bash
# pip 26.3: `pip download --platform … --python-version …` chooses wheels for that machine, but judges the markers of
# requirements, given ones and those in the metadata of packages, by the machine and the Python that pip itself runs on.
# What only the other machine needs is left out without an error (exit code 0); what only this one needs is asked for.
# Seen on Linux x86-64 with Python 3.11: "wanted on aarch64 alone: none; wanted on x86_64 alone: packaging-25.0-py3-none-any.whl;
# on Python 3.9, wanted below 3.10: none".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pip==26.3 || exit 69
if [ "$(uname -m)" != x86_64 ]; then
    echo "for x86-64 hosts" && exit 69
fi
found() { # the wheels that are fetched for aarch64 and Python $1 of a requirement with a marker
    rm -rf "$folder/wheels" && mkdir "$folder/wheels"
    "$folder/venv/bin/pip" download -q --no-deps --only-binary=:all: --platform manylinux2014_aarch64 --python-version "$1" \
        --dest "$folder/wheels" "packaging==25.0; $2" >&2 || exit 69
    ls "$folder/wheels"
}
other=$(found 3.11 'platform_machine == "aarch64"')
own=$(found 3.11 'platform_machine == "x86_64"')
old=$(found 3.9 'python_version < "3.10"')
echo "wanted on aarch64 alone: ${other:-none}; wanted on x86_64 alone: ${own:-none}; on Python 3.9, wanted below 3.10: ${old:-none}"
[ -z "$other" ] && [ -n "$own" ] && [ -z "$old" ]
