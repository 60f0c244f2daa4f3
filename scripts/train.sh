#!/usr/bin/env bash
# One training on verl's own trainer: a model, a method, a seed; FSDP or Megatron; vLLM, SGLang or, for a trial, a CPU.
#
#   MODEL=qwen2_5_math_1_5b METHOD=ispo DATA=~/data/math bash scripts/train.sh
#   MODEL=qwen2_5_math_7b METHOD=dapo SEED=2 DATA=~/data/math bash scripts/train.sh data.train_batch_size=256
#   MODEL=runs/quickstart/base DATA=runs/quickstart/data-levels1-6 REWARD=pkg://verl_ispo.tiny_task.reward \
#       ROLLOUT=cpu STEPS=3 bash scripts/train.sh data.train_batch_size=16 data.max_prompt_length=32 \
#       data.max_response_length=96 actor_rollout_ref.actor.ppo_mini_batch_size=8     # after examples/quickstart.sh
#   DRY_RUN=1 MODEL=qwen2_5_7b ENGINE=megatron ROLLOUT=sglang DATA=~/data/math bash scripts/train.sh
#
# The same command resumes from the last checkpoint; when its steps are done it says so and returns. All arguments are
# Hydra overrides and win over the variables. Several nodes: scripts/slurm/train.sbatch, or scripts/ray/.
#
# Each variable is the option of the same name of `verl-ispo train`: STEPS is --steps. Its --help says the same.
#
#   MODEL=...             qwen2_5_math_1_5b, qwen2_5_math_7b, qwen2_5_7b (settings in verl_ispo/config/base_model), also by
#                         the name on the hub (Qwen/Qwen2.5-Math-7B) or a folder of that name; any other folder or
#                         organisation/name has no such settings
#   MODEL_PATH=           folder of that preset's weights (default: its name on the hub)
#   MODEL_COPIES=runs/models   for copies with a longer context (own config.json, links to the weights), where a preset
#                         needs one; on a disk that all nodes see, like the weights and HF_HOME
#   METHOD=ispo           any method of `verl-ispo methods`
#   DATA=                 folder of data_prep: dapo_math.parquet to train on, the five benchmarks to validate on;
#                         or train.parquet and heldout.parquet
#   TRAIN_FILES= VAL_FILES=    parquet files instead, separated by spaces
#   REWARD=pkg://verl_ispo.grading.reward_function   grader: pkg://a.module or a file with compute_score
#   ENGINE=fsdp           fsdp, megatron
#   ROLLOUT=vllm          vllm, sglang; for trials with small models cpu, or cpu_vllm (scripts/setup_vllm_cpu.sh)
#   NNODES=1              nodes
#   GPUS_PER_NODE=8       GPUs of each (CPU workers with ROLLOUT=cpu; default 1 there)
#   OMP_NUM_THREADS=1 TQ_NUM_THREADS=1   with ROLLOUT=cpu, threads of each process; RAY_worker_niceness is then 0 unless set
#                         (ordinary priority: at Ray's default of 15, workers get almost no CPU time beside other work)
#   ROLLOUT_TP=           GPUs of one rollout engine (default: the preset's)
#   TRAIN_TP=2            tensor parallel size of ENGINE=megatron (ours; for the actor and the reference)
#   SEED=1                of data order and rollouts
#   STEPS=1000            training steps (ours: the paper states none, its figures reach 1000)
#   BUDGET_TOKENS= BUDGET_GPU_HOURS=   end at the first step at which the run has spent so many tokens of rollouts (such as
#                         2e9), or hours of rollouts and training times the GPUs, over all its starts; STEPS is then the most
#   SAVE_FREQ=50          steps between checkpoints
#   KEEP=2                checkpoints to keep, over all starts (about 90 GB each for 7B, 12 bytes per parameter). With 1, a
#                         kill while one is saved can leave none: verl removes the old one before it records the new
#   GRACE_S=20            seconds that SIGTERM or Ctrl-C leaves a training to finish its step and save it; a second signal
#                         ends it at once. Less than what sends SIGKILL afterwards: docker 10, Slurm and Kubernetes 30
#   TEST_FREQ=50          steps between validations; -1: none
#   CHANGE=0              1: resume the run in OUT although its settings differ from those of its first start; what changed,
#                         and at which step, is in OUT/changes.jsonl and a mark in the report
#   LOGGERS=console,file   verl's loggers, such as console,file,wandb. TensorBoard, W&B and SwanLab write into OUT and go
#                         on as one run over all starts
#   SCREEN=log            what is shown during training: log (all that verl prints) or progress (a bar, the score and the
#                         time left); the log file has everything in both cases
#   OUT=                  folder of this run (default: runs/train/<model>/<method>-seed<seed>, with a short digest of the
#                         overrides that decide what is trained): logs, metrics of each start, checkpoints, rollout dump;
#                         on a cluster, on a disk that all nodes see
#   RAY_ADDRESS=          host:port of a running Ray cluster to join (default: start a Ray on this node)
#   RAY_ENV=              names of more environment variables to pass to its processes; passed always: those that begin
#                         with NCCL_, VLLM_, SGLANG_, VERL_, TQ_, WANDB_, SWANLAB_, MLFLOW_, TRACKIO_ or CLEARML_, and
#                         HF_HUB_OFFLINE, HF_HOME, HF_TOKEN, OMP_NUM_THREADS and PYTHONPATH. Secrets (*_KEY, *_TOKEN,
#                         *_SECRET ...) go in a file of mode 600 in OUT, never on a command line
#   PYTHON=python         interpreter of the environment
#   DRY_RUN=0             1: `verl-ispo doctor --no-ray --dry-run` on exactly these settings; nothing is started or
#                         downloaded (a preset with a longer context gets its copy if its weights are on this machine)
#   PRINT_ONLY=0          1: print the command; nothing is started
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/variables.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
values MODEL MODEL_PATH MODEL_COPIES METHOD DATA REWARD ENGINE ROLLOUT NNODES GPUS_PER_NODE ROLLOUT_TP TRAIN_TP SEED STEPS
values BUDGET_TOKENS BUDGET_GPU_HOURS SAVE_FREQ KEEP GRACE_S TEST_FREQ LOGGERS SCREEN OUT RAY_ADDRESS
words TRAIN_FILES VAL_FILES RAY_ENV
flags CHANGE DRY_RUN PRINT_ONLY
exec "${PYTHON:-python}" -m verl_ispo.cli train "${options[@]}" -- "$@"
