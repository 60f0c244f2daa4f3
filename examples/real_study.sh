#!/usr/bin/env bash
# Five methods from one pretrained language model: docs/real_study.md has the question, the measures and the rule, fixed
# before the runs.
#
#   bash examples/real_study.sh                                              # a CPU: one seed, two hours on 2 cores
#   ROLLOUT=vllm SEEDS="1 2 3" STEPS=40 bash examples/real_study.sh          # a GPU, where verl_ispo[gpu] is installed
#
# Makes the start as examples/real_model.sh does, trains and evaluates every method and seed, and ends with the measures, a
# table and a report. Finished parts are not repeated: a second start resumes. A run that fails does not stop the others;
# a second start tries it again.
#
#   MODEL=            folder or hub id of a model with a chat template (default: SmolLM2-135M-Instruct)
#   SFT_STEPS=12      supervised steps that teach the box; 0 leaves them out
#   DATA=             folder of data_prep, or with train.parquet and heldout.parquet (default: made sums and word problems)
#   METHODS="..."     any of `verl-ispo methods` (default: those of docs/real_study.md)
#   SEEDS=1           of data order and rollouts
#   STEPS=12          training steps of each run
#   PROMPTS=8         per step, in two updates
#   ROLLOUTS=8        per prompt
#   MAX_NEW_TOKENS=64   longest response
#   ROLLOUT=cpu       vllm, sglang (GPUs), cpu, cpu_vllm
#   VLLM_ARGS=        as verl-ispo eval --vllm-args, for the evaluations with vLLM
#   JOBS=1            runs at a time, with ROLLOUT=cpu; 12 GiB of memory each
#   OUT=runs/real_study   folder of all files
#   PYTHON=python     with GPUs: interpreter of the environment
#
# All arguments are Hydra overrides of every training.
set -euo pipefail
source "$(dirname "$0")/../scripts/variables.sh"
absolute MODEL DATA
cd "$(dirname "$0")/.."
case "${1:-}" in
    -h | --help) print_help "examples/$(basename "$0")"; exit 0 ;;
esac
source scripts/setup_real_model.sh
values MODEL SFT_STEPS DATA STEPS PROMPTS ROLLOUTS MAX_NEW_TOKENS ROLLOUT JOBS OUT
words METHODS SEEDS VLLM_ARGS
exec "${PYTHON:-python}" -m verl_ispo.real_model.study "${options[@]}" -- "$@"
