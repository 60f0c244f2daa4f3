#!/usr/bin/env bash
# One training on verl's own trainer: a model, a method, a seed; FSDP or Megatron; vLLM, SGLang or, to try it, a CPU.
#
#   MODEL=qwen2_5_math_1_5b METHOD=ispo DATA=~/data/math bash scripts/train.sh
#   MODEL=qwen2_5_math_7b METHOD=dapo SEED=2 DATA=~/data/math bash scripts/train.sh data.train_batch_size=256
#   MODEL=runs/quickstart/base DATA=runs/quickstart/data-levels1-6 REWARD=pkg://verl_ispo.tiny_task.reward \
#       ROLLOUT=cpu STEPS=3 bash scripts/train.sh data.train_batch_size=16 data.max_prompt_length=32 \
#       data.max_response_length=96 actor_rollout_ref.actor.ppo_mini_batch_size=8     # after examples/quickstart.sh
#   DRY_RUN=1 MODEL=qwen2_5_7b ENGINE=megatron ROLLOUT=sglang DATA=~/data/math bash scripts/train.sh
#
# The same command goes on from the last checkpoint; when its steps are done it says so and returns. All arguments are
# Hydra overrides and win over what is set here. Several nodes: scripts/slurm/train.sbatch, or scripts/ray/.
#
#   MODEL=...             qwen2_5_math_1_5b, qwen2_5_math_7b, qwen2_5_7b (settings in verl_ispo/config/base_model), or any
#                         folder or organisation/name of the hub, then without such settings
#   MODEL_PATH=           where the weights of that preset are (default: its name on the hub)
#   MODEL_COPIES=runs/models   for copies with a longer context (own config.json, links to the weights), where a preset
#                         asks for one; on a disk that all nodes see, as the weights and HF_HOME
#   METHOD=ispo           any method of `verl-ispo methods`
#   DATA=                 folder of data_prep: dapo_math.parquet to train on, the five benchmarks to validate on;
#                         or train.parquet and heldout.parquet
#   TRAIN_FILES= VAL_FILES=    parquet files instead, separated by spaces
#   REWARD=pkg://verl_ispo.grading.reward_function   grader: pkg://a.module or a file with compute_score
#   ENGINE=fsdp           fsdp, megatron
#   ROLLOUT=vllm          vllm, sglang, cpu (the back end for trying; with small models)
#   NNODES=1              nodes
#   GPUS_PER_NODE=8       GPUs of each (CPU workers with ROLLOUT=cpu; default 1 there)
#   OMP_NUM_THREADS=1 TQ_NUM_THREADS=1   with ROLLOUT=cpu, of each process
#   ROLLOUT_TP=           GPUs of one rollout engine (default: the preset's)
#   TRAIN_TP=2            tensor parallel size of ENGINE=megatron (ours; both the actor's and the reference's)
#   SEED=1                of data order and rollouts
#   STEPS=1000            training steps (ours: the paper states none, its figures reach 1000)
#   SAVE_FREQ=50          steps between checkpoints
#   KEEP=2                checkpoints that are kept, over all starts (of 7B some 90 GB each, 12 bytes a parameter). With
#                         1, a kill while one is saved can leave none: verl removes the old one before it notes the new
#   TEST_FREQ=50          steps between validations; -1: none
#   LOGGERS=console,file   verl's loggers, such as console,file,wandb
#   SCREEN=log            what is shown while it trains: log (all that verl prints) or progress (a bar, the score and the
#                         time left); the log file has everything either way
#   OUT=                  folder of this run (default: runs/train/<model>/<method>-seed<seed>): logs, metrics a start,
#                         checkpoints, rollout dump; on a cluster on a disk that all nodes see
#   RAY_ADDRESS=          host:port of a running Ray cluster to join (default: a Ray of its own, on this node)
#   RAY_ENV=              more names of environment variables that its processes need; those that begin with NCCL_, VLLM_,
#                         SGLANG_, VERL_, TQ_, HF_HUB_OFFLINE, HF_HOME, OMP_NUM_THREADS and PYTHONPATH are passed on by
#                         themselves
#   PYTHON=python         interpreter of the environment
#   DRY_RUN=0             1: `verl-ispo doctor --no-ray --dry-run` on exactly these settings; nothing is started or
#                         downloaded (a preset with a longer context gets its copy, if its weights are here)
#   PRINT_ONLY=0          1: print the command; nothing is started
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch_checks.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

ENGINE="${ENGINE:-fsdp}" ROLLOUT="${ROLLOUT:-vllm}" METHOD="${METHOD:-ispo}" NNODES="${NNODES:-1}"
one_of ENGINE "$ENGINE" fsdp megatron
one_of ROLLOUT "$ROLLOUT" vllm sglang cpu
SCREEN="${SCREEN:-log}"
one_of SCREEN "$SCREEN" log progress
check_method "$METHOD"
if [ -z "${MODEL:-}" ]; then
    echo "MODEL is not set. Known: $(preset_names base_model), a folder, or organisation/name of the model hub" >&2
    exit 2
fi
check_model "$MODEL"
if [ "$ROLLOUT" = cpu ]; then
    if [ "$ENGINE" != fsdp ]; then
        echo "ENGINE=$ENGINE needs GPUs; with ROLLOUT=cpu set ENGINE=fsdp" >&2
        exit 2
    fi
    export VERL_PLATFORM=cpu OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TQ_NUM_THREADS="${TQ_NUM_THREADS:-1}"
    GPUS_PER_NODE="${GPUS_PER_NODE:-1}"
fi
GPUS_PER_NODE="${GPUS_PER_NODE:-8}" ROLLOUT_TP="${ROLLOUT_TP:-}" TRAIN_TP="${TRAIN_TP:-2}"
SEED="${SEED:-1}" STEPS="${STEPS:-1000}" SAVE_FREQ="${SAVE_FREQ:-50}" KEEP="${KEEP:-2}" TEST_FREQ="${TEST_FREQ:-50}"
REWARD="${REWARD:-pkg://verl_ispo.grading.reward_function}" LOGGERS="${LOGGERS:-console,file}"
DATA="${DATA:-}" TRAIN_FILES="${TRAIN_FILES:-}" VAL_FILES="${VAL_FILES:-}" MODEL_PATH="${MODEL_PATH:-}"
RAY_ADDRESS="${RAY_ADDRESS:-}" RAY_ENV="${RAY_ENV:-}" PYTHON="${PYTHON:-python}"
DRY_RUN="${DRY_RUN:-0}" PRINT_ONLY="${PRINT_ONLY:-0}"
one_of DRY_RUN "$DRY_RUN" 0 1
one_of PRINT_ONLY "$PRINT_ONLY" 0 1
whole_number NNODES "$NNODES"
whole_number GPUS_PER_NODE "$GPUS_PER_NODE"
whole_number STEPS "$STEPS"
starts=1
if [ "$DRY_RUN" = 1 ] || [ "$PRINT_ONLY" = 1 ]; then starts=0; fi

model_name="$(basename "$MODEL")"
OUT="$(realpath -m "${OUT:-runs/train/$model_name/$METHOD-seed$SEED}")"
MODEL_COPIES="$(realpath -m "${MODEL_COPIES:-runs/models}")"

case "$RAY_ADDRESS" in
    *://*)
        echo "RAY_ADDRESS=$RAY_ADDRESS is a dashboard's or a client's address; give host:port of the head, as ray start" \
            "prints it" >&2
        exit 2
        ;;
    "")
        if [ "$NNODES" != 1 ] && [ "$starts" = 1 ]; then
            echo "NNODES=$NNODES needs a Ray cluster: start one with scripts/ray/ and set RAY_ADDRESS=host:port, or use" \
                "scripts/slurm/train.sbatch" >&2
            exit 2
        fi
        ;;
esac

# --- data
read -r -a train_files <<<"$TRAIN_FILES"
read -r -a val_files <<<"$VAL_FILES"
if [ -n "$DATA" ]; then
    DATA="$(realpath -m "$DATA")"
    layout=prepared
    if [ -e "$DATA/train.parquet" ] && [ ! -e "$DATA/dapo_math.parquet" ]; then layout=plain; fi
    if [ "${#train_files[@]}" = 0 ]; then
        if [ "$layout" = plain ]; then train_files=("$DATA/train.parquet"); else train_files=("$DATA/dapo_math.parquet"); fi
    fi
    if [ "${#val_files[@]}" = 0 ]; then
        if [ "$layout" = plain ]; then
            val_files=("$DATA/heldout.parquet")
        else
            for benchmark in aime24 aime25 amc23 math500 olympiadbench; do val_files+=("$DATA/$benchmark.parquet"); done
        fi
    fi
fi
for place in "${!train_files[@]}"; do train_files[place]="$(realpath -m "${train_files[place]}")"; done
for place in "${!val_files[@]}"; do val_files[place]="$(realpath -m "${val_files[place]}")"; done
if [ "${#train_files[@]}" = 0 ] || [ "${#val_files[@]}" = 0 ]; then
    echo "no data: set DATA to a folder of data_prep (python -m data_prep.dapo_math --local_save_dir FOLDER, and the" \
        "benchmarks), or TRAIN_FILES and VAL_FILES" >&2
    exit 2
fi
if [ "$starts" = 1 ]; then
    for file in "${train_files[@]}" "${val_files[@]}"; do
        if [ ! -e "$file" ]; then
            echo "$file does not exist; python -m data_prep.<set> --local_save_dir $(dirname "$file") writes it" >&2
            exit 2
        fi
    done
fi

# --- settings, as Hydra overrides
config_name=ispo_trainer
if [ "$ENGINE" = megatron ]; then config_name=ispo_megatron_trainer; fi
settings=("method=$METHOD")
if is_model_preset "$MODEL"; then
    settings+=("base_model=$MODEL")
    if [ -d "$MODEL_PATH" ]; then MODEL_PATH="$(realpath "$MODEL_PATH")"; fi
    if [ -n "$MODEL_PATH" ]; then settings+=("actor_rollout_ref.model.path=$(hydra_quoted "$MODEL_PATH")"); fi
elif [ -n "$MODEL_PATH" ]; then
    echo "MODEL_PATH=$MODEL_PATH goes with a preset (MODEL one of: $(preset_names base_model)); here set MODEL alone" >&2
    exit 2
else
    if [ -d "$MODEL" ]; then MODEL="$(realpath "$MODEL")"; fi
    settings+=("actor_rollout_ref.model.path=$(hydra_quoted "$MODEL")")
fi
settings+=(
    "data.train_files=$(hydra_list "${train_files[@]}")"
    "data.val_files=$(hydra_list "${val_files[@]}")"
    "data.seed=$SEED"
    "actor_rollout_ref.rollout.seed=$SEED"
    "reward.custom_reward_function.path=$(hydra_quoted "$REWARD")"
    "trainer.nnodes=$NNODES"
    "trainer.n_gpus_per_node=$GPUS_PER_NODE"
    "trainer.total_training_steps=$STEPS"
    # verl ends at whichever comes first; an epoch has a step at least
    "trainer.total_epochs=$STEPS"
    "trainer.save_freq=$SAVE_FREQ"
    "trainer.test_freq=$TEST_FREQ"
    "trainer.max_actor_ckpt_to_keep=$KEEP"
    trainer.v1.ispo.keep_over_starts=true
    "trainer.logger=[$LOGGERS]"
    trainer.project_name=verl_ispo
    "trainer.experiment_name=$(hydra_quoted "$model_name-$METHOD-seed$SEED")"
    "trainer.default_local_dir=$(hydra_quoted "$OUT/checkpoints")"
    trainer.resume_mode=auto
    "trainer.v1.ispo.dump_dir=$(hydra_quoted "$OUT/dump")"
    "hydra.run.dir=$(hydra_quoted "$OUT")"
)
if [ "$ROLLOUT" = cpu ]; then
    settings+=(backend=cpu)
else
    settings+=("actor_rollout_ref.rollout.name=$ROLLOUT")
    if [ -n "$ROLLOUT_TP" ]; then
        settings+=("actor_rollout_ref.rollout.tensor_model_parallel_size=$ROLLOUT_TP")
    fi
    # the reference is used for one forward a step, and its weights can wait in host memory (ours, as verl's examples)
    if [ "$ENGINE" = megatron ]; then
        recompute=actor_rollout_ref.actor.megatron.override_transformer_config.recompute
        settings+=(
            "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=$TRAIN_TP"
            # as FSDP's gradient checkpointing, which is verl's default there: without it the activations of a 7B model
            # do not fit on 8 GPUs of 80 GB
            "${recompute}_granularity=full"
            "${recompute}_method=uniform"
            "${recompute}_num_layers=1"
            actor_rollout_ref.ref.megatron.param_offload=true
        )
    else
        settings+=(actor_rollout_ref.ref.fsdp_config.param_offload=true)
    fi
fi
if [ -n "$RAY_ADDRESS" ]; then
    # verl gives ray_init to ray.init, which takes no sizes for a cluster that runs already
    settings+=("+ray_kwargs.ray_init.address=$(hydra_quoted "$RAY_ADDRESS")" ray_kwargs.ray_init.num_cpus=null)
    if [ "$ROLLOUT" = cpu ]; then settings+=(ray_kwargs.ray_init.num_gpus=null); fi
else
    # or Ray would join one that somebody has started on this node, or that a killed training has left there
    settings+=(+ray_kwargs.ray_init.address=local)
fi

# --- what follows from the whole config, the arguments included
values="$("$PYTHON" "$scripts/composed_settings.py" --config-name "$config_name" actor_rollout_ref.model.path \
    actor_rollout_ref.model.override_config.max_position_embeddings actor_rollout_ref.model.override_config.rope_theta \
    reward.reward_kwargs.overlong_buffer_cfg.enable data.max_response_length data.train_batch_size \
    actor_rollout_ref.actor.ppo_mini_batch_size actor_rollout_ref.rollout.n -- "${settings[@]}" "$@")"
{
    read -r model_path && read -r positions && read -r theta && read -r overlong && read -r response_length
    read -r prompts && read -r mini_batch && read -r rollouts
} <<<"$values"
if [ "$ROLLOUT" = cpu ]; then
    # micro-batches by rows (packed ones are for flash attention), of a size that divides a worker's share
    workers=$((NNODES * GPUS_PER_NODE))
    micro_batch="$(greatest_common_divisor $((mini_batch * rollouts / workers)) 64)"
    log_prob_micro_batch="$(greatest_common_divisor $((prompts * rollouts / workers)) 128)"
    settings+=(
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=$micro_batch"
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=$log_prob_micro_batch"
    )
fi
if [ "$overlong" = True ]; then
    # DAPO's length penalty begins a fifth before the end, as in its paper
    settings+=("reward.reward_kwargs.overlong_buffer_cfg.len=$((response_length / 5))")
fi
derived=()
# The copy's config.json holds the context, so that verl's overrides, which reach only some readers, are taken out.
use_longer_context() {
    local copy override=actor_rollout_ref.model.override_config
    if [ -z "$positions" ]; then return; fi
    derived+=("~$override.max_position_embeddings")
    if [ -n "$theta" ]; then derived+=("~$override.rope_theta"); fi
    copy="$MODEL_COPIES/$(basename "$model_path")-$positions"
    # a command that is only printed names the copy that its start would make
    if [ "$PRINT_ONLY" = 0 ]; then
        copy="$("$PYTHON" "$scripts/extend_context.py" --model "$model_path" --max-position-embeddings "$positions" \
            ${theta:+--rope-theta "$theta"} --out "$copy")" || return 2
    fi
    derived+=("actor_rollout_ref.model.path=$(hydra_quoted "$copy")")
}

if [ "$starts" = 1 ]; then
    mkdir -p "$OUT"
    # One writer a run. The lock is inherited by the training, so that one which outlived its script still holds it.
    exec 9>"$OUT/lock"
    if ! flock -n 9; then
        echo "another process works in $OUT; wait for it or end it, or set another OUT" >&2
        exit 1
    fi
    identity="$(printf '%s\n' "MODEL=$MODEL" "METHOD=$METHOD" "SEED=$SEED")"
    if [ -e "$OUT/run.txt" ] && [ "$(head -n 3 "$OUT/run.txt")" != "$identity" ]; then
        echo "$OUT holds another run ($(head -n 3 "$OUT/run.txt" | paste -s -d ' ')), which this one would go on from;" \
            "set another OUT" >&2
        exit 2
    fi
    if [ -e "$OUT/done" ] && [ "$(cat "$OUT/done")" -ge "$STEPS" ]; then
        echo "$OUT: its $(cat "$OUT/done") steps are done; for more set STEPS, for another run OUT"
        exit 0
    fi
    use_longer_context
    attempt=1
    # verl starts its log file anew, so each start gets a file of its own
    while [ -e "$OUT/metrics.$attempt.jsonl" ] || [ -e "$OUT/train.$attempt.log" ]; do attempt=$((attempt + 1)); done
    export VERL_FILE_LOGGER_PATH="$OUT/metrics.$attempt.jsonl"
    if [ -n "$RAY_ADDRESS" ]; then use_ray_token; fi
fi
if [ -n "$RAY_ADDRESS" ]; then
    # processes of that cluster have the environment of its ray start, not this one
    for name in $(compgen -e); do
        case " $RAY_ENV " in *" $name "*) passed=1 ;; *) passed=0 ;; esac
        case "$name" in
            VERL_* | NCCL_* | TQ_* | VLLM_* | SGLANG_* | HF_HOME | HF_HUB_OFFLINE | OMP_NUM_THREADS | PYTHONPATH) passed=1 ;;
        esac
        if [ "$passed" = 1 ]; then
            settings+=("+ray_kwargs.ray_init.runtime_env.env_vars.$name=$(hydra_quoted "${!name}")")
        fi
    done
fi

if [ "$PRINT_ONLY" = 1 ]; then use_longer_context; fi
command=("$PYTHON" -m verl.trainer.main_ppo "--config-name=$config_name" "${settings[@]}" "$@" "${derived[@]}")
if [ "$PRINT_ONLY" = 1 ]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
if [ "$DRY_RUN" = 1 ]; then
    of_the_copy=()
    # a model that is not on this machine is copied at the start, where it runs
    if ! HF_HUB_OFFLINE=1 use_longer_context 2>/dev/null; then of_the_copy=(--context-positions "$positions"); fi
    exec "$PYTHON" -m verl_ispo.cli doctor --no-ray --dry-run --config-name "$config_name" "${of_the_copy[@]}" \
        "${settings[@]}" "$@" "${derived[@]}"
fi

printf '%s\n' "$identity" "RESPONSE_LENGTH=$response_length" "STEPS=$STEPS" >"$OUT/run.txt"
printf '%q ' "${command[@]}" >"$OUT/command.$attempt.txt"
echo "$model_name $METHOD seed $SEED: start $attempt, log $OUT/train.$attempt.log"
log="$OUT/train.$attempt.log"
screen=""
if [ "$SCREEN" = log ]; then
    exec 8> >(tee "$log")
    screen=$!
else
    exec 8>"$log"
fi
"${command[@]}" >&8 2>&1 8>&- &
training=$!
exec 8>&-
bar=""
# shellcheck disable=SC2086
trap 'kill -TERM "$training" $bar 2>/dev/null || true; wait "$training" $bar 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ "$SCREEN" = progress ]; then
    # behind `wait`, during which a signal is heeded at once
    "$PYTHON" -m verl_ispo.training_progress --metrics "$VERL_FILE_LOGGER_PATH" --pid "$training" --steps "$STEPS" \
        --label "$METHOD seed $SEED" 9>&- &
    bar=$!
    wait "$bar" || true
    bar=""
fi
status=0
wait "$training" || status=$?
trap - EXIT
# until the log has its last lines
for _ in $(seq 50); do
    if [ -z "$screen" ] || ! kill -0 "$screen" 2>/dev/null; then break; fi
    sleep 0.1
done
if [ "$status" != 0 ]; then
    if [ "$SCREEN" = progress ]; then tail -n 20 "$log" >&2; fi
    reason="$(why_it_stopped "$log")"
    echo "$model_name $METHOD seed $SEED stopped with status $status${reason:+: $reason}" >&2
    last=""
    if [ -e "$OUT/checkpoints/latest_checkpointed_iteration.txt" ]; then
        last="$(cat "$OUT/checkpoints/latest_checkpointed_iteration.txt")"
    fi
    if [ -n "$last" ]; then
        echo "see $log; the same command goes on from the checkpoint of step $last" >&2
    else
        echo "see $log; there is no checkpoint yet, the same command starts anew" >&2
    fi
    exit 1
fi
echo "$STEPS" >"$OUT/done"
echo "$model_name $METHOD seed $SEED: done ($OUT)"
