#!/usr/bin/env bash
# The paper's table: models x methods x seeds, each trained and evaluated on the five benchmarks, then one table.
#
#   DRY_RUN=1 DATA=~/data/math bash scripts/reproduce_table.sh     # the plan, and a preflight of each cell
#   DATA=~/data/math bash scripts/reproduce_table.sh
#   MODELS=qwen2_5_math_1_5b METHODS="grpo ispo" SEEDS=1 DATA=~/data/math bash scripts/reproduce_table.sh
#
# Prints the plan and an estimate first. Cells run one after the other, each on all GPUs; what is done is used again, so
# the same command goes on where it stopped. A cell that fails does not stop the others. Several of these commands may
# share one OUT (each run has a lock); the table is of all that is there. All arguments are Hydra overrides, for every
# cell.
#
#   MODELS="..."          of scripts/train.sh (default: qwen2_5_math_1_5b qwen2_5_math_7b qwen2_5_7b)
#   METHODS="..."         of `verl-ispo methods` (default: grpo dr_grpo dapo progrpo prepo gtpo grpo_s ispo)
#   SEEDS="1 2 3"         of data order and rollouts
#   MODEL_PATH=           where the weights are, if there is one model (default: the hub, or its cache)
#   DATA=                 folder of data_prep: training set and the five benchmarks
#   STEPS=1000            training steps of each cell (ours: the paper states none, its figures reach 1000)
#   OUT=runs/table        folder of all runs, results and the table
#   N=16                  samples of each problem beside the greedy one, in the evaluation
#   LAUNCHER="bash scripts/train.sh"   what trains a cell; "sbatch --wait scripts/slurm/train.sbatch" on Slurm (the
#                         evaluations run where this script runs)
#   SECONDS_PER_STEP=     for the estimate (default: the paper's, see there)
#   PYTHON=python         interpreter of the environment
#   DRY_RUN=0             1: the plan, then the preflight of each cell; nothing is started
#   PRINT_ONLY=0          1: the plan alone
#
# ENGINE, ROLLOUT, NNODES, GPUS_PER_NODE and the other variables of scripts/train.sh and scripts/eval.sh hold here too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch_checks.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
MODELS="${MODELS:-qwen2_5_math_1_5b qwen2_5_math_7b qwen2_5_7b}"
METHODS="${METHODS:-grpo dr_grpo dapo progrpo prepo gtpo grpo_s ispo}"
SEEDS="${SEEDS:-1 2 3}" STEPS="${STEPS:-1000}" N="${N:-16}" DATA="${DATA:-}" PYTHON="${PYTHON:-python}"
OUT="$(realpath -m "${OUT:-runs/table}")" LAUNCHER="${LAUNCHER:-bash $scripts/train.sh}"
SECONDS_PER_STEP="${SECONDS_PER_STEP:-}" DRY_RUN="${DRY_RUN:-0}" PRINT_ONLY="${PRINT_ONLY:-0}"
one_of DRY_RUN "$DRY_RUN" 0 1
one_of PRINT_ONLY "$PRINT_ONLY" 0 1
whole_number STEPS "$STEPS"
for model in $MODELS; do check_model "$model"; done
for method in $METHODS; do check_method "$method"; done
for seed in $SEEDS; do whole_number SEEDS "$seed"; done
if [ -n "${MODEL_PATH:-}" ] && [ "$(wc -w <<<"$MODELS")" != 1 ]; then
    echo "MODEL_PATH=$MODEL_PATH is the weights of one model, and MODELS=$MODELS are several; start each by itself" >&2
    exit 2
fi
if [ -z "$DATA" ]; then
    echo "no data: set DATA to a folder of data_prep, with dapo_math.parquet and the five benchmarks" >&2
    exit 2
fi
export DATA STEPS PYTHON N

# the paper's table of costs: 18.2 s a step for GRPO, 26.4 for DAPO's dynamic sampling, 19.0 for ISPO
seconds_per_step() {
    if [ -n "$SECONDS_PER_STEP" ]; then echo "$SECONDS_PER_STEP"; return; fi
    case "$1" in
        grpo | dr_grpo) echo 18.2 ;;
        dapo) echo 26.4 ;;
        *) echo 19.0 ;;
    esac
}

cells=()
for model in $MODELS; do for seed in $SEEDS; do for method in $METHODS; do
    cells+=("$model $method $seed")
done; done; done
run_of() { echo "$OUT/runs/$(basename "$1")/$2-seed$3"; }
result_of() { echo "$OUT/results/$(basename "$1")-$2${3:+-seed$3}"; }

# --- the plan
left=() left_rates=()
echo "plan: ${#cells[@]} cells of $STEPS steps, and the start of each model evaluated; $OUT"
for cell in "${cells[@]}"; do
    read -r model method seed <<<"$cell"
    state="to do"
    if [ -e "$(run_of "$model" "$method" "$seed")/done" ]; then state=trained; fi
    if [ -e "$(result_of "$model" "$method" "$seed")/summary.json" ]; then state=done; fi
    if [ "$state" = "to do" ]; then left+=("$cell") left_rates+=("$(seconds_per_step "$method")"); fi
    printf '  %-22s %-24s seed %-3s %s\n' "$model" "$method" "$seed" "$state"
done
if [ -n "$SECONDS_PER_STEP" ]; then source_of_rate="SECONDS_PER_STEP=$SECONDS_PER_STEP"; else
    source_of_rate="the ISPO paper's seconds a step on 8 x A100 80 GB (GRPO 18.2, DAPO 26.4, ISPO 19.0, taken for all \
others and for every model); nothing of it was measured with this code, and other GPUs, models and lengths differ"
fi
printf '%s\n' "${left_rates[@]}" | awk -v steps="$STEPS" -v cells="${#left[@]}" -v why="$source_of_rate" '
    { hours += $1 * steps / 3600 }
    END {
        printf "estimate: %.0f hours for the %d cells to train, one after the other; from %s.\n", hours, cells, why
        print "Start-up, validations, checkpoints and the evaluations (1275 problems, greedy and the samples) come on top."
    }' | fold -s -w 120
if [ "$PRINT_ONLY" = 1 ]; then exit 0; fi

failed=()
if [ "$DRY_RUN" = 1 ]; then
    for cell in "${cells[@]}"; do
        read -r model method seed <<<"$cell"
        echo "== preflight of $model $method seed $seed"
        MODEL="$model" METHOD="$method" SEED="$seed" OUT="$(run_of "$model" "$method" "$seed")" \
            bash "$scripts/train.sh" "$@" || failed+=("$cell")
    done
else
    unset DRY_RUN PRINT_ONLY
    for model in $MODELS; do
        echo "== the start: $model"
        RUN='' MODEL="$model" METHOD=Base SEED='' BENCHMARKS="$DATA" OUT="$(result_of "$model" Base '')" \
            bash "$scripts/eval.sh" || failed+=("$model Base -")
    done
    for cell in "${cells[@]}"; do
        read -r model method seed <<<"$cell"
        run="$(run_of "$model" "$method" "$seed")"
        echo "== $model $method seed $seed"
        # shellcheck disable=SC2086
        if ! MODEL="$model" METHOD="$method" SEED="$seed" OUT="$run" $LAUNCHER "$@"; then
            failed+=("$cell")
            continue
        fi
        RUN="$run" MODEL='' METHOD='' SEED='' BENCHMARKS="$DATA" OUT="$(result_of "$model" "$method" "$seed")" \
            bash "$scripts/eval.sh" || failed+=("$cell")
    done
    results=()
    for summary in "$OUT"/results/*/summary.json; do
        if [ -e "$summary" ]; then results+=("$(dirname "$summary")"); fi
    done
    if [ "${#results[@]}" != 0 ]; then
        "$PYTHON" -m verl_ispo.cli table "${results[@]}" --paper-rows models --out "$OUT/table"
        echo "Table: $OUT/table/table.md"
    fi
fi
if [ "${#failed[@]}" != 0 ]; then
    echo "${#failed[@]} cell(s) failed; the same command tries them again:" >&2
    printf '  %s\n' "${failed[@]}" >&2
    exit 1
fi
