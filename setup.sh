#!/bin/sh
# Makes the virtual environment with the pinned packages; called by `make setup`.
set -eu

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

say() { echo "simcrop set-up: $*" >&2; }

if ! command -v "$PYTHON" >/dev/null 2>&1; then
    say "there is no $PYTHON. Install Python 3.11 or later (Debian: apt-get install python3 python3-venv)."
    exit 1
fi
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "$("$PYTHON" --version) is too old: Python 3.11 or later is needed. Name another with make PYTHON=python3.12 ..."
    exit 1
fi

# Debian packs venv apart from Python.
if ! "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing python3-venv"
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    else
        say "Python's venv is missing. As root: apt-get install python3-venv"
        exit 1
    fi
fi

if [ ! -x "$VENV/bin/python" ]; then
    say "making $VENV"
    "$PYTHON" -m venv "$VENV"
fi
say "installing the pinned packages (the first time takes some minutes)"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".[dev]"
say "ready"
