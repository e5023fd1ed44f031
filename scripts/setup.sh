#!/usr/bin/env bash
# Makes .venv with everything that is locked, and the three packages installed editable; free when nothing has changed.
# PYTHON=python3.12 chooses an interpreter; else the first of those below that is new enough.
# `scripts/setup.sh bench` also installs the systems that `make bench` compares with, `… fuzz` what guides `make fuzz`.
set -euo pipefail
cd "$(dirname "$0")/.."

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c "$new_enough" 2>/dev/null; then
        python=$candidate
        break
    fi
done

# What Debian and Ubuntu call the packages that are missing.
missing=()
if [ -z "$python" ]; then
    # A python3 that is too old stays what it is; a newer one is installed beside it.
    version=3
    if command -v python3 >/dev/null; then version=3.11; fi
    missing+=("python$version" "python$version-venv" "python$version-dev")
else
    case $python in *python3.[0-9]*) version=3.${python##*python3.} ;; *) version=3 ;; esac
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$version-venv")
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        missing+=("python$version-dev")
fi
command -v "${CXX:-c++}" >/dev/null || missing+=(g++) # hnswlib has no wheels
if [ ${#missing[@]} -gt 0 ]; then
    sudo=
    if [ "$(id -u)" != 0 ]; then sudo="sudo "; fi
    echo "make setup needs python 3.11 or newer with its venv module and headers, and a C++ compiler; install what is missing:" >&2
    echo "    ${sudo}apt-get update && ${sudo}apt-get install -y ${missing[*]}" >&2
    exit 1
fi

stamp=.venv/setup.stamp
wanted=$({ "$python" -VV; pwd; cat requirements*.lock ./*/pyproject.toml "$0"; } | sha256sum)
if grep -qsxF "$wanted${1:+ $1}" "$stamp"; then exit 0; fi

# uv reads no pip.conf: it is told the index and the certificates that pip goes by on this machine.
install() {
    local index
    index=${PIP_INDEX_URL:-$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)}
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"; fi
    if [ -s /etc/ssl/certs/ca-certificates.crt ]; then export UV_SYSTEM_CERTS=true; fi
    .venv/bin/uv pip install -q --python .venv/bin/python "$@"
}

if ! grep -qsxF "$wanted" "$stamp"; then
    echo "setting up .venv with $("$python" -V): about a minute, since hnswlib has to be compiled" >&2
    rm -f "$stamp"
    # One made elsewhere (a copied checkout) or by another interpreter is replaced: the scripts in it name both.
    if ! grep -qsF " -m venv $PWD/.venv" .venv/pyvenv.cfg || [ "$(.venv/bin/python -VV 2>/dev/null)" != "$("$python" -VV)" ]; then
        rm -rf .venv
        "$python" -m venv "$PWD/.venv"
    fi
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
    install --require-hashes --build-constraints requirements-build.lock --no-sources \
        -r requirements.lock -r requirements-uv.lock -r requirements-build.lock
    install --no-deps --no-build-isolation -e producer -e index_store -e worker
    echo "$wanted" >"$stamp"
fi
if [ -n "${1:-}" ]; then
    install --require-hashes -r "requirements-$1.lock" ||
        echo "what 'make $1' would use besides cannot be installed, so what is missing is left out" >&2
    echo "$wanted $1" >>"$stamp"
fi
