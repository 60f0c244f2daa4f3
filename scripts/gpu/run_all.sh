#!/usr/bin/env bash
# All checks that need a GPU, in one command: ISPO's reward on the GPU against the CPU's, two training steps with
# FSDP2 and vLLM that log the same metrics as on the CPU, and the time of a step.
#
# Not run on a GPU by us yet.
#
#   bash scripts/gpu/run_all.sh
#   OUT=runs/h100 PARTS="reward metrics" bash scripts/gpu/run_all.sh
#
# Needs a machine with one GPU or more and `pip install 'verl_ispo[gpu]'` with flash-attn; nothing is downloaded. A part
# that fails does not stop the others. Ends with a summary, also in OUT/summary.txt; status 1: a part failed. The same
# command runs all parts again, except trainings that are done. All arguments are Hydra overrides of the trainings.
#
#   OUT=runs/gpu          folder: versions.txt, a log of each part, the runs, the tables
#   PARTS="reward metrics cost"   reward: scripts/gpu/same_as_cpu.py; metrics: two steps and scripts/gpu/same_metrics.py;
#                         cost: scripts/gpu/bench_step.sh, all of whose variables are passed on
#   PYTHON=python         interpreter of the environment
set -uo pipefail
gpu_scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$gpu_scripts/../variables.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
OUT="$(realpath -m "${OUT:-runs/gpu}")" PARTS="${PARTS:-reward metrics cost}" PYTHON="${PYTHON:-python}"
for part in $PARTS; do
    case "$part" in
        reward | metrics | cost) ;;
        *) echo "PARTS=$part is not known. Known: reward metrics cost" >&2; exit 2 ;;
    esac
done
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "$PYTHON: torch sees no CUDA GPU here; run it where there is one" >&2
    exit 2
fi
mkdir -p "$OUT"

versions() {
    date -u +%FT%TZ
    uname -srm
    nvidia-smi || echo "no nvidia-smi"
    "$PYTHON" -c 'import sys, torch; print("python", sys.version); print("torch", torch.__version__, torch.version.cuda)'
    "$PYTHON" -m pip freeze || echo "no pip in this environment"
    git -C "$gpu_scripts" log -1 --format='verl_ispo %H' || echo "not a git checkout"
    git -C "$gpu_scripts" status --short
}
versions >"$OUT/versions.txt" 2>&1

reward() {
    "$PYTHON" "$gpu_scripts/same_as_cpu.py"
}

metrics() {
    RANDOM_OUT="$OUT/random" OUT="$OUT/metrics" PYTHON="$PYTHON" \
        VARIANTS=ispo:separate LENGTHS=256 STEPS=2 WARMUP=0 PROMPTS=4 bash "$gpu_scripts/bench_step.sh" "$@" &&
        "$PYTHON" "$gpu_scripts/same_metrics.py" "$OUT/metrics/256/ispo-separate"
}

cost() {
    RANDOM_OUT="$OUT/random" OUT="$OUT/cost" PYTHON="$PYTHON" bash "$gpu_scripts/bench_step.sh" "$@"
}

failed=0
: >"$OUT/summary.txt"
for part in $PARTS; do
    echo "== $part, log $OUT/$part.log"
    begin=$SECONDS
    if "$part" "$@" 2>&1 | tee "$OUT/$part.log"; then outcome=passed; else outcome=FAILED failed=1; fi
    echo "$part: $outcome after $((SECONDS - begin)) s, log $OUT/$part.log" >>"$OUT/summary.txt"
done
echo
cat "$OUT/summary.txt"
for table in "$OUT"/cost/step-*.md; do
    if [ -e "$table" ]; then echo "table: $table"; fi
done
exit "$failed"
