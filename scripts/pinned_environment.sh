#!/usr/bin/env bash
# Makes an environment with a pinned set, once; for scripts/setup_cpu.sh and scripts/setup_vllm_cpu.sh.
#
#   source scripts/pinned_environment.sh
#   pinned_environment FOLDER SET [COMMAND ...]   # requirements/SET.txt and the project into FOLDER, then COMMAND in there
#
# PYTHON=...  interpreter to use (default: the first of python3.11, 3.12, 3.10, python3 that is 3.10 to 3.12)

_is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

pinned_environment() {
    local folder="$1" set="$2" root python="" candidate stamp
    shift 2
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    # changes with what is installed, and with the command after it
    stamp="$folder/.installed-$({ cat "$root/setup.py" "$root/requirements/cpu.txt" "$root/requirements/$set.txt"
        [ "$#" -eq 0 ] || declare -f "$1"; } | cksum | cut -d' ' -f1)"
    if [ ! -e "$stamp" ]; then
        for candidate in ${PYTHON:-python3.11 python3.12 python3.10 python3}; do
            if _is_supported "$candidate"; then python="$candidate"; break; fi
        done
        if [ -z "$python" ]; then
            echo "verl_ispo needs Python 3.10, 3.11 or 3.12 (verl's range); found none. Set PYTHON=/path/to/python3.11" >&2
            return 1
        fi
        echo "== installing requirements/$set.txt into $folder ($("$python" --version)); a few minutes, once"
        [ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || return 1
        # stderr keeps pip's real errors; warnings about index pages that a mirror lacks are left out
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
            -r "$root/requirements/$set.txt" -e "$root[dev,plot]" \
            2> >(grep -v '^WARNING: Location' >&2) || return 1
        [ "$#" -eq 0 ] || "$@" "$folder/bin/python" "$root" || return 1
        rm -f "$folder"/.installed-*
        touch "$stamp"
    fi
    export PATH="$folder/bin:$PATH"
}
