#!/usr/bin/env bash
# Checks the sums of a slim bundle and unpacks it, without a network; then says how to run the GPU checks from it.
#
#   TO=/fast/disk/verl_ispo bash unpack.sh
#
#   PYTHON=python         interpreter that has PyTorch and Triton; of the bundle's Python version
#   TO=verl_ispo_gpu      folder for the packages and scripts; must be new
set -euo pipefail
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0"; exit 0 ;;
    "") ;;
    *) echo "no arguments; settings are environment variables, see --help" >&2; exit 2 ;;
esac
PYTHON="${PYTHON:-python}" TO="$(realpath -m "${TO:-verl_ispo_gpu}")"
if [ -e "$TO" ]; then
    echo "TO=$TO is there already; remove it or set another TO" >&2
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")"
echo "== 1/3 checking the sums"
if ! sha256sum --check --quiet SHA256SUMS; then
    echo "a file is missing or damaged, see above; copy it again" >&2
    exit 1
fi
version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
wanted="$(sed -n 's/^PYTHON_VERSION=//p' bundle.txt)"
if [ "$version" != "$wanted" ]; then
    echo "$PYTHON is Python $version, and the packages are for $wanted; set PYTHON to that version" >&2
    exit 1
fi
echo "== 2/3 unpacking into $TO"
mkdir -p "$TO.unfinished"
# Python's own xz, since a bare image may have none
extract='import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall(sys.argv[1], filter="data")'
cat site.tar.xz.part-* | "$PYTHON" -c "$extract" "$TO.unfinished"
mv "$TO.unfinished" "$TO"
echo "== 3/3 compiling"
# a run starts some seven Python processes in a row, each of which would compile
"$PYTHON" -m compileall -q -j 0 "$TO/site" >"$TO/compileall.log" 2>&1 || true
echo "source $TO/environment.sh && bash $TO/scripts/gpu/run_all.sh backend=torch_only_gpu"
