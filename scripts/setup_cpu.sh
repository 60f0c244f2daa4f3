#!/usr/bin/env bash
# Makes .venv with the pinned CPU set; a second call finds it and returns.
#
#   source scripts/setup_cpu.sh        # and the environment is active in this shell
#
# PYTHON=...  interpreter to use (default: the first of python3.11, 3.12, 3.10, python3 that is 3.10 to 3.12)
# VENV=...    where the environment goes (default: .venv in the repository)
#
# pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS ...) hold. On Linux the plain torch wheel brings
# several GB of CUDA packages; point PIP_EXTRA_INDEX_URL at PyTorch's CPU wheels to leave them out.
set -euo pipefail

_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_venv="${VENV:-$_root/.venv}"

_is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

_stamp="$_venv/.installed-$(cat "$_root/setup.py" "$_root/requirements/cpu.txt" | cksum | cut -d' ' -f1)"
if [ ! -e "$_stamp" ]; then
    _python=""
    for _candidate in ${PYTHON:-python3.11 python3.12 python3.10 python3}; do
        if _is_supported "$_candidate"; then _python="$_candidate"; break; fi
    done
    if [ -z "$_python" ]; then
        echo "verl_ispo needs Python 3.10, 3.11 or 3.12 (verl's range); found none. Set PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    echo "== installing the pinned CPU set into $_venv ($("$_python" --version)); a few minutes, once"
    [ -x "$_venv/bin/python" ] || "$_python" -m venv "$_venv"
    # stderr keeps pip's real errors; warnings about index pages that a mirror lacks are left out
    "$_venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r "$_root/requirements/cpu.txt" -e "$_root[dev,plot]" \
        2> >(grep -v '^WARNING: Location' >&2)
    rm -f "$_venv"/.installed-*
    touch "$_stamp"
fi
export PATH="$_venv/bin:$PATH"
