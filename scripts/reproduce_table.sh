#!/usr/bin/env bash
# The paper's table: models x methods x seeds, each trained and evaluated on the five benchmarks, then one table.
#
#   DRY_RUN=1 DATA=~/data/math bash scripts/reproduce_table.sh     # the plan, and a preflight of each cell
#   DATA=~/data/math bash scripts/reproduce_table.sh
#   MODELS=qwen2_5_math_1_5b METHODS="grpo ispo" SEEDS=1 DATA=~/data/math bash scripts/reproduce_table.sh
#
# Prints the plan and an estimate first. Cells run one after the other, each on all GPUs. Finished cells are not repeated,
# so the same command resumes. A cell that fails does not stop the others. Several of these commands may share one OUT
# (each run has a lock); the table has all finished runs in it. All arguments are Hydra overrides for every cell.
#
#   MODELS="..."          of scripts/train.sh (default: qwen2_5_math_1_5b qwen2_5_math_7b qwen2_5_7b)
#   METHODS="..."         of `verl-ispo methods` (default: grpo dr_grpo dapo progrpo prepo gtpo grpo_s ispo)
#   SEEDS="1 2 3"         of data order and rollouts
#   MODEL_PATH=           folder of the weights, with one model only (default: the hub, or its cache)
#   DATA=                 folder of data_prep: training set and the five benchmarks
#   STEPS=1000            training steps of each cell (ours: the paper states none, its figures reach 1000)
#   BUDGET_TOKENS= BUDGET_GPU_HOURS=   equal budgets instead of equal steps: each cell ends at the first step at which it
#                         has spent them (scripts/train.sh says what counts), after STEPS steps at the latest
#   OUT=runs/table        folder of all runs, results and the table
#   N=16                  samples per problem beside the greedy response, in the evaluation
#   LAUNCHER="bash scripts/train.sh"   what trains a cell; "sbatch --wait scripts/slurm/train.sbatch" on Slurm (the
#                         evaluations run where this script runs)
#   SECONDS_PER_STEP=     for the estimate (default: the paper's; the plan lists them)
#   PYTHON=python         interpreter of the environment
#   DRY_RUN=0             1: the plan, then the preflight of each cell; nothing is started
#   PRINT_ONLY=0          1: the plan alone
#
# ENGINE, ROLLOUT, NNODES, GPUS_PER_NODE and the other variables of scripts/train.sh and scripts/eval.sh hold here too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/variables.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
values MODEL_PATH DATA STEPS BUDGET_TOKENS BUDGET_GPU_HOURS OUT N LAUNCHER SECONDS_PER_STEP
words MODELS METHODS SEEDS
flags DRY_RUN PRINT_ONLY
# the other variables of scripts/train.sh and scripts/eval.sh
values MODEL_COPIES REWARD ENGINE ROLLOUT NNODES GPUS_PER_NODE ROLLOUT_TP TRAIN_TP SAVE_FREQ KEEP GRACE_S TEST_FREQ LOGGERS
values SCREEN RAY_ADDRESS TEMPERATURE TOP_P MAX_NEW_TOKENS SAMPLING_SEED SAMPLER TENSOR_PARALLEL
words TRAIN_FILES VAL_FILES RAY_ENV
exec "${PYTHON:-python}" -m verl_ispo.cli reproduce-table "${options[@]}" -- "$@"
