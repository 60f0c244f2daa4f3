#!/usr/bin/env bash
# All checks that need a GPU, in one command, the quickest first: ISPO's reward and packed attention on the GPU against
# the CPU's, two training steps with FSDP2 and vLLM that log the same metrics as on the CPU, and the time of a step.
#
#   bash scripts/gpu/run_all.sh
#   OUT=runs/h100 PARTS="reward metrics" bash scripts/gpu/run_all.sh
#   ATTENTION=torch_varlen bash scripts/gpu/run_all.sh backend=torch_only_gpu      # without flash-attn and flashinfer
#
# Needs a machine with one GPU or more and `pip install 'verl_ispo[gpu]'` with flash-attn; nothing is downloaded. A part
# or a training that fails, or takes longer than LIMIT_S, does not stop the others, and what is known is in OUT at once.
# Ends with a summary, also in OUT/summary.txt; status 1: a part failed. The same command runs all parts again, except
# trainings that are done. All arguments are Hydra overrides of the trainings.
#
#   OUT=runs/gpu          folder: versions.txt, a log of each part, the runs, the tables
#   PARTS="reward attention metrics cost"   reward: scripts/gpu/same_as_cpu.py; attention: scripts/gpu/same_attention.py;
#                         metrics: two steps and scripts/gpu/same_metrics.py; cost: scripts/gpu/bench_step.sh for each of
#                         LENGTHS and VARIANTS, all of whose variables are passed on
#   LENGTHS="1024 4096"   new tokens, for cost
#   VARIANTS="grpo ispo:separate ispo:merged"   for cost, as scripts/gpu/bench_step.sh explains
#   WARMUP=2              first steps, which the tables leave out
#   REWARD_SIZES=         ROLLOUTSxTOKENS ..., instead of those of same_as_cpu.py
#   LIMIT_S=1800          seconds for the reward, and for each training
#   PYTHON=python         interpreter of the environment
set -uo pipefail
gpu_scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$gpu_scripts/../variables.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
OUT="$(realpath -m "${OUT:-runs/gpu}")" PARTS="${PARTS:-reward attention metrics cost}" PYTHON="${PYTHON:-python}"
LENGTHS="${LENGTHS:-1024 4096}" VARIANTS="${VARIANTS:-grpo ispo:separate ispo:merged}" LIMIT_S="${LIMIT_S:-1800}"
for part in $PARTS; do
    case "$part" in
        reward | attention | metrics | cost) ;;
        *) echo "PARTS=$part is not known. Known: reward attention metrics cost" >&2; exit 2 ;;
    esac
done
[[ "$LIMIT_S" =~ ^[1-9][0-9]*$ ]] || { echo "LIMIT_S=$LIMIT_S is not a whole number from 1; set LIMIT_S=1800" >&2; exit 2; }
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

limited() { timeout --kill-after=30 "$LIMIT_S" "$@"; }

reward() {
    # shellcheck disable=SC2086 # one word per size
    limited "$PYTHON" "$gpu_scripts/same_as_cpu.py" ${REWARD_SIZES:+--sizes $REWARD_SIZES}
}

attention() {
    limited "$PYTHON" "$gpu_scripts/same_attention.py"
}

metrics() {
    RANDOM_OUT="$OUT/random" OUT="$OUT/metrics" PYTHON="$PYTHON" \
        VARIANTS=ispo:separate LENGTHS=256 STEPS=2 WARMUP=0 PROMPTS=4 limited bash "$gpu_scripts/bench_step.sh" \
        actor_rollout_ref.rollout.calculate_log_probs=true "$@" &&
        "$PYTHON" "$gpu_scripts/same_metrics.py" "$OUT/metrics/256/ispo-separate"
}

cost() {
    local status=0 length variant columns
    mkdir -p "$OUT/cost"
    for length in $LENGTHS; do
        columns=()
        for variant in $VARIANTS; do
            RANDOM_OUT="$OUT/random" OUT="$OUT/cost" PYTHON="$PYTHON" LENGTHS="$length" VARIANTS="$variant" \
                limited bash "$gpu_scripts/bench_step.sh" "$@" || { status=1; continue; }
            columns+=("$variant=$OUT/cost/$length/${variant/:/-}")
            "$PYTHON" "$gpu_scripts/../step_timing_table.py" "${columns[@]}" --skip "${WARMUP:-2}" \
                --csv "$OUT/cost/step-$length.csv" >"$OUT/cost/step-$length.md" || status=1
        done
    done
    return "$status"
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
