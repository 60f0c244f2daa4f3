#!/usr/bin/env bash
# Makes .megatron_cpu, the folder with Megatron that tests/megatron uses; a second call finds it and returns.
#
#   source scripts/setup_cpu.sh && source scripts/setup_megatron_cpu.sh      # and MEGATRON_CPU names the folder
#
# MEGATRON_CPU=...  where the folder goes (default: .megatron_cpu in the repository)
#
# A folder and no environment: only the tests' own processes have it on their path, so nothing else can come to depend on
# it. pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS ...) hold.
set -euo pipefail

_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_wanted="$_root/requirements/megatron_cpu.txt"
export MEGATRON_CPU="${MEGATRON_CPU:-$_root/.megatron_cpu}"

_stamp=".installed-$({ cat "$_wanted"; python --version; } | cksum | cut -d' ' -f1)"
if [ ! -e "$MEGATRON_CPU/$_stamp" ]; then
    if [ -e "$MEGATRON_CPU" ] && ! compgen -G "$MEGATRON_CPU/.installed-*" >/dev/null; then
        echo "MEGATRON_CPU=$MEGATRON_CPU was not made by scripts/setup_megatron_cpu.sh; remove it or set another" >&2
        exit 1
    fi
    echo "== installing Megatron for the tests into $MEGATRON_CPU; half a minute, once"
    _building="$(mktemp -d "$MEGATRON_CPU.XXXXXX")"
    trap 'rm -rf "$_building"' EXIT
    # stderr keeps pip's real errors; warnings about index pages that a mirror lacks are left out
    python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python --no-compile \
        --target "$_building" -r "$_wanted" 2> >(grep -v '^WARNING: Location' >&2)
    touch "$_building/$_stamp"
    chmod 755 "$_building"
    rm -rf "$MEGATRON_CPU"
    mv "$_building" "$MEGATRON_CPU"
    trap - EXIT
fi
