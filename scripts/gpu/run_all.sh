#!/usr/bin/env bash
# All checks that need a GPU, in one command of under 8 minutes, the most wanted first: ISPO's reward and packed attention
# on the GPU against the CPU's, two training steps with FSDP2 and vLLM that log the same metrics as on the CPU, and the
# time of a step for GRPO, ISPO with a separate pass and ISPO with the merged pass, at each length.
#
#   bash scripts/gpu/run_all.sh
#   ATTENTION=torch_varlen bash scripts/gpu/run_all.sh backend=torch_only_gpu      # without flash-attn and flashinfer
#   TOTAL_S=9000 LIMIT_S=1800 STEPS=6 WARMUP=2 PROMPTS=32 bash scripts/gpu/run_all.sh      # figures to keep
#
# Needs a machine with one GPU or more and `pip install 'verl_ispo[gpu]'` with flash-attn, or the bundle that
# EXTRA=gpu SLIM=1 scripts/offline_bundle.sh makes; nothing is downloaded. Each check and each training has its own time
# limit, and its result is in OUT/summary.txt at once, where a table of the trainings so far is named too. What fails
# does not stop the others. After TOTAL_S seconds nothing more is started; the same command then goes on with what has
# not passed. Status 1: something has not passed. All arguments are Hydra overrides of the trainings.
#
#   OUT=runs/gpu          folder: versions.txt, a log of each check and training, the runs, the tables
#   PARTS="reward attention metrics cost"   reward: scripts/gpu/same_as_cpu.py; attention: scripts/gpu/same_attention.py;
#                         metrics: ISPO's training of cost at the first length, and scripts/gpu/same_metrics.py; cost:
#                         scripts/gpu/bench_step.sh for each of LENGTHS and VARIANTS, all of whose variables are passed on
#   LENGTHS="1024 4096"   new tokens
#   VARIANTS="grpo ispo:separate ispo:merged"   for cost, as scripts/gpu/bench_step.sh explains
#   STEPS=2               steps of each training
#   WARMUP=1              first steps, which the tables leave out
#   PROMPTS=8             prompts per step, with 8 rollouts each
#   REWARD_SIZES="24x7 512x1024"   ROLLOUTSxTOKENS ... of same_as_cpu.py; 1024x8192 takes the CPU minutes
#   LIMIT_S=200           seconds for each training, its start included
#   CHECK_LIMIT_S=60      seconds for each check without a training
#   TOTAL_S=450           seconds for all; up to 30 more pass until what is running has ended
#   PYTHON=python         interpreter of the environment
set -uo pipefail
gpu_scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$gpu_scripts/../variables.sh"
source "$gpu_scripts/results.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
OUT="$(realpath -m "${OUT:-runs/gpu}")" PARTS="${PARTS:-reward attention metrics cost}" PYTHON="${PYTHON:-python}"
LENGTHS="${LENGTHS:-1024 4096}" VARIANTS="${VARIANTS:-grpo ispo:separate ispo:merged}"
LIMIT_S="${LIMIT_S:-200}" CHECK_LIMIT_S="${CHECK_LIMIT_S:-60}" TOTAL_S="${TOTAL_S:-450}"
REWARD_SIZES="${REWARD_SIZES:-24x7 512x1024}"
export PYTHON STEPS="${STEPS:-2}" WARMUP="${WARMUP:-1}" PROMPTS="${PROMPTS:-8}"
for part in $PARTS; do
    case "$part" in
        reward | attention | metrics | cost) ;;
        *) echo "PARTS=$part is not known. Known: reward attention metrics cost" >&2; exit 2 ;;
    esac
done
for name in LIMIT_S CHECK_LIMIT_S TOTAL_S; do
    [[ "${!name}" =~ ^[1-9][0-9]*$ ]] ||
        { echo "$name=${!name} is not a whole number from 1; set for instance $name=200" >&2; exit 2; }
done
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "$PYTHON: torch sees no CUDA GPU here; run it where there is one" >&2
    exit 2
fi
mkdir -p "$OUT/cost"

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

# training LENGTH VARIANT OVERRIDES...: one run of the step benchmark, then the table of all that have passed at its length
training() {
    local length="$1" variant="$2" columns=() each
    shift 2
    if has_passed "$length $variant"; then return 0; fi
    one "$length $variant" "$LIMIT_S" env OUT="$OUT/cost" RANDOM_OUT="$OUT/random" LENGTHS="$length" VARIANTS="$variant" \
        bash "$gpu_scripts/bench_step.sh" actor_rollout_ref.rollout.calculate_log_probs=true "$@" || return 1
    for each in $VARIANTS; do
        if has_passed "$length $each"; then columns+=("$each=$OUT/cost/$length/${each/:/-}"); fi
    done
    if [ "${#columns[@]}" = 0 ]; then return 0; fi
    "$PYTHON" "$gpu_scripts/../step_timing_table.py" "${columns[@]}" --skip "$WARMUP" --csv "$OUT/cost/step-$length.csv" \
        >"$OUT/cost/step-$length.md" || failed=1
}

reward() {
    # shellcheck disable=SC2086 # one word per size
    one reward "$CHECK_LIMIT_S" "$PYTHON" "$gpu_scripts/same_as_cpu.py" --sizes $REWARD_SIZES
}

attention() { one attention "$CHECK_LIMIT_S" "$PYTHON" "$gpu_scripts/same_attention.py"; }

metrics() {
    local length="${LENGTHS%% *}"
    training "$length" ispo:separate "$@" &&
        one metrics "$CHECK_LIMIT_S" "$PYTHON" "$gpu_scripts/same_metrics.py" "$OUT/cost/$length/ispo-separate"
}

cost() {
    local length variant
    for length in $LENGTHS; do
        for variant in $VARIANTS; do training "$length" "$variant" "$@"; done
    done
}

keep_passed
SECONDS=0
for part in $PARTS; do "$part" "$@"; done
echo
cat "$OUT/summary.txt"
for table in "$OUT"/cost/step-*.md; do
    if [ -e "$table" ]; then echo "table: $table"; fi
done
exit "$failed"
