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

# The window needs libraries that a bare Linux lacks; its tests, a display without a screen.
WINDOW="libegl1 libgl1-mesa-dri libxkbcommon-x11-0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 \
libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1 libdbus-1-3 \
libfontconfig1 libglib2.0-0 xvfb xauth"
if command -v dpkg-query >/dev/null 2>&1; then
    missing=
    for package in $WINDOW; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" ||
            dpkg-query -W -f '${Status}' "${package}t64" 2>/dev/null | grep -q "ok installed" ||
            missing="$missing $package"
    done
    if [ -n "$missing" ] && [ "$(id -u)" = 0 ]; then
        say "installing libraries for the window:$missing"
        apt-get update -qq && apt-get install -y -qq $missing >/dev/null ||
            say "they could not be installed; the commands work, the window may not"
    elif [ -n "$missing" ]; then
        say "for the window and its tests, as root: apt-get install$missing"
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
