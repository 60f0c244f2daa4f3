#!/usr/bin/env bash
# What pip needs on a machine without a network, in parts that fit a medium: wheels, this package, install.sh.
#
#   bash scripts/offline_bundle.sh                          # the pinned CPU set (requirements/cpu.txt)
#   EXTRA=gpu OUT=/media/stick bash scripts/offline_bundle.sh       # with vLLM and FSDP; also: sglang
#   PROJECT_DEPS=0 REQUIREMENTS=more.txt bash scripts/offline_bundle.sh   # for an image that has verl already
#
# Run it on a machine with a network and the same system and Python version as the target. On the target:
#
#   PYTHON=/path/to/python bash install.sh        # checks the sums, joins the parts, installs with --no-index
#
#   REQUIREMENTS=requirements/cpu.txt   what to bundle, as pip reads it (default with EXTRA: only the project's)
#   EXTRA=                gpu, sglang: the project's extra of that name instead of the CPU set
#   PROJECT_DEPS=1        0: this package without its dependencies, which the target already has
#   PART_MB=1900          size of a part; the default is below the 2 GiB and 4 GB limits of media and uploads
#   OUT=offline_bundle    folder of the bundle; must be empty or new
#   PYTHON=python         interpreter whose version the wheels are for
#
# pip's own settings hold (PIP_INDEX_URL, PIP_FIND_LINKS, ...). Packages without a wheel are built into one.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/variables.sh"
no_arguments "$0" "$@"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
EXTRA="${EXTRA:-}" PROJECT_DEPS="${PROJECT_DEPS:-1}" PART_MB="${PART_MB:-1900}" PYTHON="${PYTHON:-python}"
REQUIREMENTS="${REQUIREMENTS:-}"
refuse() { echo "$1" >&2; exit 2; }
if [ -n "$EXTRA" ]; then
    case "$EXTRA" in
        gpu | sglang) ;;
        *) refuse "EXTRA=$EXTRA is not known. Known: gpu sglang" ;;
    esac
else
    REQUIREMENTS="${REQUIREMENTS:-$root/requirements/cpu.txt}"
fi
flags PROJECT_DEPS
[[ "$PART_MB" =~ ^[1-9][0-9]*$ ]] || refuse "PART_MB=$PART_MB is not a whole number from 1; set for instance PART_MB=1900"
OUT="$(realpath -m "${OUT:-offline_bundle}")"
[ -z "$REQUIREMENTS" ] || [ -e "$REQUIREMENTS" ] ||
    refuse "REQUIREMENTS=$REQUIREMENTS does not exist; name a requirements file"
if [ -e "$OUT" ] && [ -n "$(ls -A "$OUT")" ]; then
    refuse "OUT=$OUT is not empty; remove it or set another OUT"
fi

mkdir -p "$OUT"
building="$(mktemp -d "$OUT/.building.XXXXXX")"
trap 'rm -rf "$building"' EXIT
mkdir "$building/wheels"
wanted=()
: >"$building/requirements.txt"
if [ -n "$REQUIREMENTS" ]; then
    cp "$REQUIREMENTS" "$building/requirements.txt"
    wanted+=(-r "$building/requirements.txt")
fi

echo "== 1/3 wheels for $("$PYTHON" --version) on $(uname -sm)"
# from a copy, so that building leaves no files in the repository
mkdir "$building/source"
cp -r "$root"/{setup.py,pyproject.toml,README.md,verl_ispo,data_prep,hydra_plugins} "$building/source/"
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$building/wheels" "$building/source"
project="$(basename "$building"/wheels/verl_ispo-*.whl)"
if [ "$PROJECT_DEPS" = 1 ]; then wanted+=("$building/wheels/$project${EXTRA:+[$EXTRA]}"); fi
if [ "${#wanted[@]}" != 0 ]; then
    "$PYTHON" -m pip wheel --quiet --wheel-dir "$building/wheels" "${wanted[@]}"
fi
echo "   $(find "$building/wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$building/wheels" | cut -f1)"

echo "== 2/3 parts of at most $PART_MB MB"
printf '%s\n' "PROJECT=$project" "EXTRA=$EXTRA" "PROJECT_DEPS=$PROJECT_DEPS" \
    "PYTHON_VERSION=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" >"$OUT/bundle.txt"
tar -C "$building" -cf - wheels requirements.txt |
    split --bytes="${PART_MB}MB" --numeric-suffixes=1 --suffix-length=3 - "$OUT/wheels.tar.part-"
cat >"$OUT/install.sh" <<'INSTALL'
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
INSTALL
(cd "$OUT" && sha256sum bundle.txt install.sh wheels.tar.part-* >SHA256SUMS)

echo "== 3/3 $OUT: $(find "$OUT" -name 'wheels.tar.part-*' | wc -l) part(s), $(du -sh --exclude='.building*' "$OUT" | cut -f1)"
echo "   copy the folder to the target, then run there: PYTHON=/path/to/python bash install.sh"
