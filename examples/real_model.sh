#!/usr/bin/env bash
# GRPO, ISPO as in the paper, and ISPO with a guard, from one pretrained language model, on verl's own trainer.
#
#   bash examples/real_model.sh                                              # a CPU: an hour or two on 2 cores
#   MODEL=Qwen/Qwen2.5-0.5B-Instruct ROLLOUT=vllm bash examples/real_model.sh     # a GPU, where verl_ispo[gpu] is installed
#
# Teaches the model in a few supervised steps to answer in a \boxed{}, probes what ISPO would do on it, says how long the
# rest will take here, trains each method from that start, evaluates all of them on held-out problems, and prints a table
# with intervals and the paths of the probe's page and the report. Without MODEL it is SmolLM2-135M-Instruct, which comes
# from a Python package and needs no model hub. Finished parts are not repeated: a second start resumes, or only prints.
#
#   MODEL=            folder or hub id of a model with a chat template (default: SmolLM2-135M-Instruct)
#   SFT_STEPS=12      supervised steps that teach the box; 0 leaves them out
#   DATA=             folder of data_prep, or with train.parquet and heldout.parquet (default: made sums and word problems)
#   METHODS="grpo ispo ispo_guarded"   any of `verl-ispo methods`
#   SEED=1            of data order and rollouts
#   STEPS=12          training steps of each method
#   PROMPTS=8         per step, in two updates
#   ROLLOUTS=8        per prompt
#   MAX_NEW_TOKENS=64   longest response
#   ROLLOUT=cpu       vllm, sglang (GPUs), cpu, cpu_vllm
#   VLLM_ARGS=        as verl-ispo eval --vllm-args, for the evaluations with vLLM
#   OUT=runs/real_model   folder of all files
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
values MODEL SFT_STEPS DATA SEED STEPS PROMPTS ROLLOUTS MAX_NEW_TOKENS ROLLOUT OUT
words METHODS VLLM_ARGS
exec "${PYTHON:-python}" -m verl_ispo.real_model.example "${options[@]}" -- "$@"
