#!/usr/bin/env bash
# One checkpoint on the five benchmarks: greedy, and N samples per problem at a temperature. Wraps `verl-ispo eval`.
#
#   RUN=runs/train/qwen2_5_math_1_5b/ispo-seed1 BENCHMARKS=~/data/math bash scripts/eval.sh
#   MODEL=qwen2_5_math_1_5b BENCHMARKS=~/data/math bash scripts/eval.sh     # the model that those runs start from
#
# The same command resumes a killed run. All arguments are options of `verl-ispo eval`, and win over the variables.
#
#   RUN=                  folder of scripts/train.sh: its last checkpoint, with its model, method, seed and length
#   MODEL=                or a model: a preset of scripts/train.sh, a folder, a checkpoint of verl, organisation/name
#   MODEL_PATH=           where the weights of that preset are (default: its name on the hub)
#   MODEL_COPIES=runs/models   for copies with a longer context, as in scripts/train.sh
#   BENCHMARKS=           folder of data_prep with the five benchmarks
#   FILES=                parquet files instead, separated by spaces
#   OUT=                  folder of this evaluation (default: RUN/result, or runs/eval/<model>)
#   N=16                  samples per problem beside the greedy response; 0: only the greedy one
#   TEMPERATURE=0.6       of the samples
#   TOP_P=1.0             of the samples
#   MAX_NEW_TOKENS=       longest response (default: that of the run or the preset, else 4096)
#   SAMPLING_SEED=0       of the sampling
#   SAMPLER=auto          auto, vllm, cpu
#   TENSOR_PARALLEL=1     GPUs for one model
#   REWARD=pkg://verl_ispo.grading   grader
#   BASE_MODEL= METHOD= SEED=   names in the table (default: the run's; as the paper writes them)
#   PYTHON=python         interpreter of the environment
#   PRINT_ONLY=0          1: print the command; nothing is started
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/variables.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
values RUN MODEL MODEL_PATH MODEL_COPIES BENCHMARKS OUT N TEMPERATURE TOP_P MAX_NEW_TOKENS SAMPLING_SEED SAMPLER
values TENSOR_PARALLEL REWARD BASE_MODEL METHOD SEED
words FILES
flags PRINT_ONLY
exec "${PYTHON:-python}" -m verl_ispo.cli evaluate-run "${options[@]}" -- "$@"
