#!/usr/bin/env bash
# Checks the sums, joins the parts and installs, without a network.
#
#   PYTHON=/path/to/python bash install.sh
#
#   PYTHON=python         interpreter of the environment to install into
#   WORK=                 folder for the joined wheels, as large as the parts (default: a temporary one)
set -euo pipefail
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0"; exit 0 ;;
    "") ;;
    *) echo "no arguments; settings are environment variables, see --help" >&2; exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")"
PYTHON="${PYTHON:-python}"
noted() { sed -n "s/^$1=//p" bundle.txt; }
echo "== 1/3 checking the sums"
if ! sha256sum --check --quiet SHA256SUMS; then
    echo "a file is missing or damaged, see above; copy it again" >&2
    exit 1
fi
version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
if [ "$version" != "$(noted PYTHON_VERSION)" ]; then
    echo "$PYTHON is Python $version, and the wheels are for $(noted PYTHON_VERSION); set PYTHON to that version" >&2
    exit 1
fi
echo "== 2/3 joining the parts"
work="${WORK:-$(mktemp -d)}"
mkdir -p "$work"
if [ -z "${WORK:-}" ]; then trap 'rm -rf "$work"' EXIT; fi
cat wheels.tar.part-* | tar -C "$work" -xf -
echo "== 3/3 installing"
install=("$PYTHON" -m pip install --disable-pip-version-check --no-index --find-links "$work/wheels")
project="$work/wheels/$(noted PROJECT)"
extra="$(noted EXTRA)"
if [ "$(noted PROJECT_DEPS)" = 1 ]; then
    "${install[@]}" -r "$work/requirements.txt" "$project${extra:+[$extra]}"
else
    if [ -s "$work/requirements.txt" ]; then "${install[@]}" -r "$work/requirements.txt"; fi
    "${install[@]}" --no-deps "$project"
fi
echo "installed into $("$PYTHON" -c 'import sys; print(sys.prefix)')"
