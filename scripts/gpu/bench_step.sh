#!/usr/bin/env bash
# What a training step costs, part by part, on GPUs: verl with FSDP2 and vLLM, GRPO without ISPO's signals, ISPO with a
# pass of its own for the ablated rows, and ISPO with these rows in the pass for the old log-probs.
#
# Not run on a GPU by us yet. On the CPU it runs in the tests, with a small model and ROLLOUT=cpu.
#
#   bash scripts/gpu/bench_step.sh
#   LENGTHS=1024 PROMPTS=16 STEPS=4 bash scripts/gpu/bench_step.sh actor_rollout_ref.rollout.gpu_memory_utilization=0.5
#   VARIANTS="grpo ispo_guarded:merged gtpo" bash scripts/gpu/bench_step.sh
#
# Trains each variant through scripts/train.sh, then prints a table of medians and shares for each length, and writes it
# beside the runs as step-LENGTH.md and .csv. The model is random unless MODEL_PATH is set (scripts/gpu/random_model.py
# says what its timings stand for): every response has full length, and nearly every one an answer. No validation, no
# checkpoint, no rollout dump. The first WARMUP steps start engines and compile, and are left out.
#
# The same command goes on with what is not done; one variant that fails does not stop the others. Status 1: one did. All
# arguments are Hydra overrides, for every variant.
#
#   OUT=runs/gpu/bench_step   folder of the runs and the tables
#   LENGTHS="1024 4096"   new tokens
#   VARIANTS="grpo ispo:separate ispo:merged"   METHOD, or METHOD:PASS with PASS for trainer.v1.ispo.ablated_pass.
#                         Methods other than ispo* run without ISPO's signals
#   STEPS=6               steps of each run
#   WARMUP=2              first of them that the table leaves out
#   PROMPTS=32            prompts a step, with 8 rollouts each, in two updates (the paper has 512)
#   MODEL_PATH=           weights of Qwen2.5-Math-1.5B (default: a random model, RANDOM_OUT/model)
#   DATA=                 folder of data as for scripts/train.sh (default: made problems, RANDOM_OUT/data)
#   RANDOM_OUT=           where the random model and its problems are, or are written to (default: OUT/random)
#   RANDOM_MODEL=         more options of scripts/gpu/random_model.py
#   ATTENTION=flash_attention_2   or sdpa, which is slow on packed rows
#   ROLLOUT=vllm          vllm, sglang, cpu
#   GPUS_PER_NODE=        default: all of this machine
#   PYTHON=python         interpreter of the environment
#   DRY_RUN=0             1: the preflight of each run; nothing is started or written
#   PRINT_ONLY=0          1: print the commands; nothing is started or written
set -euo pipefail
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$scripts/launch_checks.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac

OUT="$(realpath -m "${OUT:-runs/gpu/bench_step}")" LENGTHS="${LENGTHS:-1024 4096}"
VARIANTS="${VARIANTS:-grpo ispo:separate ispo:merged}" STEPS="${STEPS:-6}" WARMUP="${WARMUP:-2}" PROMPTS="${PROMPTS:-32}"
MODEL_PATH="${MODEL_PATH:-}" DATA="${DATA:-}" ROLLOUT="${ROLLOUT:-vllm}"
RANDOM_OUT="$(realpath -m "${RANDOM_OUT:-$OUT/random}")" RANDOM_MODEL="${RANDOM_MODEL:-}"
ATTENTION="${ATTENTION:-flash_attention_2}" GPUS_PER_NODE="${GPUS_PER_NODE:-}" PYTHON="${PYTHON:-python}"
DRY_RUN="${DRY_RUN:-0}" PRINT_ONLY="${PRINT_ONLY:-0}"
one_of ROLLOUT "$ROLLOUT" vllm sglang cpu
one_of ATTENTION "$ATTENTION" flash_attention_2 sdpa
one_of DRY_RUN "$DRY_RUN" 0 1
one_of PRINT_ONLY "$PRINT_ONLY" 0 1
whole_number STEPS "$STEPS"
whole_number PROMPTS "$PROMPTS"
for length in $LENGTHS; do whole_number LENGTHS "$length"; done
for variant in $VARIANTS; do
    check_method "${variant%%:*}"
    case "$variant" in *:*) one_of "$variant" "${variant#*:}" separate merged ;; esac
done
if [[ ! "$WARMUP" =~ ^[0-9]+$ ]] || [ "$WARMUP" -ge "$STEPS" ]; then
    echo "WARMUP=$WARMUP leaves no step of STEPS=$STEPS; set for instance WARMUP=0" >&2
    exit 2
fi
if [ $((PROMPTS % 2)) != 0 ]; then
    echo "PROMPTS=$PROMPTS is odd, and a step has two updates; set for instance PROMPTS=$((PROMPTS + 1))" >&2
    exit 2
fi
starts=1
if [ "$DRY_RUN" = 1 ] || [ "$PRINT_ONLY" = 1 ]; then starts=0; fi

if [ "$ROLLOUT" != cpu ] && [ "$starts" = 1 ]; then
    gpus="$("$PYTHON" -c 'import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)')"
    if [ "$gpus" = 0 ]; then
        echo "torch sees no CUDA GPU here; run it where there is one (ROLLOUT=cpu tries it with a small model)" >&2
        exit 2
    fi
    GPUS_PER_NODE="${GPUS_PER_NODE:-$gpus}"
    if [ "$ATTENTION" = flash_attention_2 ] && ! "$PYTHON" -c 'import flash_attn' 2>/dev/null; then
        echo "flash-attn is not installed for $PYTHON; install it, or set ATTENTION=sdpa, which is slow on packed rows" >&2
        exit 2
    fi
fi
if [ "$starts" = 1 ] && { [ -z "$MODEL_PATH" ] || [ -z "$DATA" ]; } && [ ! -e "$RANDOM_OUT/data/heldout.parquet" ]; then
    # shellcheck disable=SC2086
    "$PYTHON" "$scripts/gpu/random_model.py" --out "$RANDOM_OUT" $RANDOM_MODEL
fi
common=(
    "data.train_batch_size=$PROMPTS"
    data.max_prompt_length=512
    "actor_rollout_ref.actor.ppo_mini_batch_size=$((PROMPTS / 2))"
    actor_rollout_ref.rollout.n=8
    actor_rollout_ref.rollout.ignore_eos=true
    actor_rollout_ref.actor.strategy=fsdp2
    actor_rollout_ref.actor.fsdp_config.strategy=fsdp2
    actor_rollout_ref.ref.fsdp_config.strategy=fsdp2
    trainer.val_before_train=false
    # verl looks for finished rollouts every 2 s, which would be a part of every figure
    trainer.v1.ispo.poll_interval_s=0.1
    trainer.v1.ispo.dump_dir=null
)
if [ -z "$MODEL_PATH" ]; then
    MODEL_PATH="$RANDOM_OUT/model"
    # it has the preset's longer context in its own config.json
    for key in max_position_embeddings rope_theta; do common+=("~actor_rollout_ref.model.override_config.$key"); done
fi
if [ -z "$DATA" ]; then
    DATA="$RANDOM_OUT/data"
    common+=(
        "data.train_files=$(hydra_list "$DATA/train.parquet")"
        "data.val_files=$(hydra_list "$DATA/heldout.parquet")"
    )
fi
if [ "$ROLLOUT" != cpu ]; then
    common+=("++actor_rollout_ref.model.override_config.attn_implementation=$ATTENTION")
fi

failed=()
for length in $LENGTHS; do
    columns=()
    for variant in $VARIANTS; do
        method="${variant%%:*}" settings=("data.max_response_length=$length")
        case "$method" in ispo*) ;; *) settings+=(trainer.v1.ispo.watch_signals=false) ;; esac
        case "$variant" in *:*) settings+=("trainer.v1.ispo.ablated_pass=${variant#*:}") ;; esac
        run="$OUT/$length/${variant/:/-}"
        if [ "$starts" = 1 ]; then echo "== $variant, $length new tokens: $run"; fi
        if MODEL=qwen2_5_math_1_5b MODEL_PATH="$MODEL_PATH" METHOD="$method" DATA="$DATA" ENGINE=fsdp ROLLOUT="$ROLLOUT" \
            NNODES=1 GPUS_PER_NODE="$GPUS_PER_NODE" STEPS="$STEPS" SAVE_FREQ=-1 TEST_FREQ=-1 SEED=1 OUT="$run" \
            PYTHON="$PYTHON" DRY_RUN="$DRY_RUN" PRINT_ONLY="$PRINT_ONLY" \
            bash "$scripts/train.sh" "${common[@]}" "${settings[@]}" "$@"; then
            columns+=("$variant=$run")
        else
            failed+=("$variant at $length")
        fi
    done
    if [ "$starts" = 1 ] && [ "${#columns[@]}" != 0 ]; then
        table="$OUT/step-$length"
        if "$PYTHON" "$scripts/step_timing_table.py" "${columns[@]}" --skip "$WARMUP" --csv "$table.csv" >"$table.md"; then
            printf '\n%s new tokens, %s prompts x 8 rollouts\n\n' "$length" "$PROMPTS"
            cat "$table.md"
        else
            failed+=("the table of $length")
        fi
    fi
done
if [ "${#failed[@]}" != 0 ]; then
    echo "${#failed[@]} failed; the same command tries again:" >&2
    printf '  %s\n' "${failed[@]}" >&2
    exit 1
fi
