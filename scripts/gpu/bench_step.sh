#!/usr/bin/env bash
# The time of each part of a training step on GPUs, with FSDP2 and vLLM: GRPO without ISPO's signals, ISPO with a separate
# pass for the ablated rows, and ISPO with these rows in the pass for the old log-probs.
#
# docs/cost.md has what one H200 gave. On the CPU it runs in the tests, with a small model and ROLLOUT=cpu.
#
#   bash scripts/gpu/bench_step.sh
#   LENGTHS=1024 PROMPTS=16 STEPS=4 bash scripts/gpu/bench_step.sh actor_rollout_ref.rollout.gpu_memory_utilization=0.5
#   VARIANTS="grpo ispo_guarded:merged gtpo" bash scripts/gpu/bench_step.sh
#
# Trains each variant through scripts/train.sh, then prints a table of medians and shares for each length, and writes it
# beside the runs as step-LENGTH.md and .csv. The model is random unless MODEL_PATH is set (scripts/gpu/random_model.py
# says what its timings show): every response has full length, and nearly every one has an answer. No validation, no
# checkpoint, no rollout dump. The first WARMUP steps start engines and compile, and are left out.
#
# The same command continues with the runs that are not done; a variant that fails does not stop the others. Status 1: one
# failed. All arguments are Hydra overrides for every variant.
#
#   OUT=runs/gpu/bench_step   folder of the runs and the tables
#   LENGTHS="1024 4096"   new tokens
#   VARIANTS="grpo ispo:separate ispo:merged"   METHOD, or METHOD:PASS with PASS for trainer.v1.ispo.ablated_pass.
#                         Methods other than ispo* run without ISPO's signals
#   STEPS=6               steps of each run
#   WARMUP=2              first steps, which the table leaves out
#   PROMPTS=32            prompts per step, with 8 rollouts each, in two updates (the paper has 512)
#   MODEL_PATH=           weights of Qwen2.5-Math-1.5B (default: a random model, RANDOM_OUT/model)
#   DATA=                 folder of data as for scripts/train.sh (default: made-up problems, RANDOM_OUT/data)
#   RANDOM_OUT=           folder of the random model and its problems, written if needed (default: OUT/random)
#   RANDOM_MODEL=         more options of scripts/gpu/random_model.py
#   ATTENTION=flash_attention_2   torch_varlen needs no flash-attn package; sdpa is slow on packed rows
#   ROLLOUT=vllm          vllm, sglang, cpu
#   GPUS_PER_NODE=        default: all of this machine
#   PYTHON=python         interpreter of the environment
#   DRY_RUN=0             1: the preflight of each run; nothing is started or written
#   PRINT_ONLY=0          1: print the commands; nothing is started or written
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../variables.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
values OUT STEPS WARMUP PROMPTS MODEL_PATH DATA RANDOM_OUT ATTENTION ROLLOUT GPUS_PER_NODE
words LENGTHS VARIANTS
# its options begin with dashes, so they are passed as one word
if [ -n "${RANDOM_MODEL:-}" ]; then options+=("--random-model=$RANDOM_MODEL"); fi
flags DRY_RUN PRINT_ONLY
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/bench_step.py" "${options[@]}" -- "$@"
