#!/usr/bin/env bash
# What pip needs on a machine without a network, in parts that fit a medium: wheels, this package, install.sh.
#
#   bash scripts/offline_bundle.sh                          # the pinned CPU set (requirements/cpu.txt)
#   EXTRA=gpu OUT=/media/stick bash scripts/offline_bundle.sh       # with vLLM and FSDP; also: sglang
#   EXTRA=gpu SLIM=1 PYTHON=python3.12 bash scripts/offline_bundle.sh      # for one GPU machine that has PyTorch already
#   PROJECT_DEPS=0 REQUIREMENTS=more.txt bash scripts/offline_bundle.sh   # for an image that has verl already
#
# Run it on a machine with a network and the same system and Python version as the target. On the target:
#
#   PYTHON=/path/to/python bash install.sh        # checks the sums, joins the parts, installs with --no-index
#   PYTHON=/path/to/python bash unpack.sh         # with SLIM=1: checks the sums and unpacks; nothing is installed
#
#   REQUIREMENTS=requirements/cpu.txt   what to bundle, as pip reads it (default with EXTRA: only the project's)
#   EXTRA=                gpu, sglang: the project's extra of that name instead of the CPU set
#   PROJECT_DEPS=1        0: this package without its dependencies, which the target already has
#   SLIM=0                1, with EXTRA=gpu: the pins of requirements/gpu_slim.txt, installed into a folder, without what
#                         scripts/offline/slim_site.py lists, compressed, with the scripts for the GPU checks
#   ON_TARGET=            with SLIM=1: a file of `pip freeze` there, whose packages are left out, except transformers and
#                         tokenizers
#   PART_MB=1900          size of a part; the default is below the 2 GiB and 4 GB limits of media and uploads (SLIM=1: 60)
#   OUT=offline_bundle    folder of the bundle; must be empty or new
#   PYTHON=python         interpreter whose version the wheels are for
#
# pip's own settings hold (PIP_INDEX_URL, PIP_FIND_LINKS, ...). Packages without a wheel are built into one.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/variables.sh"
no_arguments "$0" "$@"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
EXTRA="${EXTRA:-}" PROJECT_DEPS="${PROJECT_DEPS:-1}" PYTHON="${PYTHON:-python}"
REQUIREMENTS="${REQUIREMENTS:-}" SLIM="${SLIM:-0}" ON_TARGET="${ON_TARGET:-}"
refuse() { echo "$1" >&2; exit 2; }
if [ -n "$EXTRA" ]; then
    case "$EXTRA" in
        gpu | sglang) ;;
        *) refuse "EXTRA=$EXTRA is not known. Known: gpu sglang" ;;
    esac
else
    REQUIREMENTS="${REQUIREMENTS:-$root/requirements/cpu.txt}"
fi
flags PROJECT_DEPS SLIM
unpacker=install.sh archive=wheels.tar compress=(cat)
if [ "$SLIM" = 1 ]; then
    [ "$EXTRA" = gpu ] || refuse "SLIM=1 makes the set for EXTRA=gpu alone; set EXTRA=gpu"
    command -v xz >/dev/null || refuse "SLIM=1 compresses with xz, which is not installed here; install xz-utils"
    REQUIREMENTS="${REQUIREMENTS:-$root/requirements/gpu_slim.txt}" PROJECT_DEPS=0 PART_MB="${PART_MB:-60}"
    unpacker=unpack.sh archive=site.tar.xz compress=(xz -6 -T0 -v)
elif [ -n "$ON_TARGET" ]; then
    refuse "ON_TARGET=$ON_TARGET needs SLIM=1; set it, or leave ON_TARGET out"
fi
PART_MB="${PART_MB:-1900}"
[[ "$PART_MB" =~ ^[1-9][0-9]*$ ]] || refuse "PART_MB=$PART_MB is not a whole number from 1; set for instance PART_MB=1900"
OUT="$(realpath -m "${OUT:-offline_bundle}")"
[ -z "$REQUIREMENTS" ] || [ -e "$REQUIREMENTS" ] ||
    refuse "REQUIREMENTS=$REQUIREMENTS does not exist; name a requirements file"
[ -z "$ON_TARGET" ] || [ -e "$ON_TARGET" ] || refuse "ON_TARGET=$ON_TARGET does not exist; name a file of pip freeze"
if [ -e "$OUT" ] && [ -n "$(ls -A "$OUT")" ]; then
    refuse "OUT=$OUT is not empty; remove it or set another OUT"
fi

mkdir -p "$OUT"
building="$(mktemp -d "$OUT/.building.XXXXXX")"
trap 'rm -rf "$building"' EXIT
mkdir "$building/wheels"
wanted=()
if [ "$SLIM" = 1 ]; then wanted+=(--no-deps); fi
: >"$building/requirements.txt"
if [ -n "$REQUIREMENTS" ]; then
    if [ -n "$ON_TARGET" ]; then
        "$PYTHON" "$root/scripts/offline/slim_site.py" missing "$REQUIREMENTS" "$ON_TARGET" >"$building/requirements.txt"
    else
        cp "$REQUIREMENTS" "$building/requirements.txt"
    fi
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
content=(wheels requirements.txt)
if [ "$SLIM" = 1 ]; then
    "$PYTHON" "$root/scripts/offline/slim_site.py" install "$building/wheels" "$building/site"
    cp -r "$root/scripts" "$root/scripts/offline/environment.sh" "$building/"
    content=(site scripts environment.sh)
    echo "   compressing, which takes minutes"
fi
tar -C "$building" --exclude=__pycache__ -cf - "${content[@]}" | "${compress[@]}" |
    split --bytes="${PART_MB}MB" --numeric-suffixes=1 --suffix-length=3 - "$OUT/$archive.part-"
cp "$root/scripts/offline/$unpacker" "$OUT/"
(cd "$OUT" && sha256sum bundle.txt "$unpacker" "$archive".part-* >SHA256SUMS)

echo "== 3/3 $OUT: $(find "$OUT" -name '*.part-*' | wc -l) part(s), $(du -sh --exclude='.building*' "$OUT" | cut -f1)"
echo "   copy the folder to the target, then run there: PYTHON=/path/to/python bash $unpacker"
