#!/usr/bin/env bash
# One method, one seed on the tiny task: training on verl's own trainer, then evaluation. A second start resumes.
#
#   METHOD=ispo SEED=1 BASE=runs/quickstart/base DATA=runs/quickstart/data-levels1-6 RUN=runs/mine bash examples/tiny_run.sh
#
# examples/quickstart.sh and examples/tiny_study.sh call it for each of their runs, with the environment active.
#
#   METHOD=ispo          any method of `verl-ispo methods`
#   SEED=1               of data order and rollouts
#   STEPS=25             training steps
#   BASE=...             the warm-started model      (python -m verl_ispo.tiny_task.warm_start)
#   DATA=...             train and held-out problems (python -m verl_ispo.tiny_task.make_data)
#   RUN=...              folder of this run: logs, checkpoints, rollout dump
#   RESULT=$RUN/result   folder of the evaluation
#   OVERRIDES=           more Hydra overrides, separated by spaces
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0"; exit 0 ;;
    "") ;;
    *) echo "no arguments; settings are environment variables, see --help" >&2; exit 2 ;;
esac
METHOD="${METHOD:-ispo}" SEED="${SEED:-1}" STEPS="${STEPS:-25}" OVERRIDES="${OVERRIDES:-}"
BASE="${BASE:?folder of the warm-started model, see --help}" DATA="${DATA:?folder of the problems, see --help}"
RUN="${RUN:?folder of this run, see --help}" RESULT="${RESULT:-$RUN/result}"
export VERL_PLATFORM=cpu OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 RAY_DEDUP_LOGS=0
mkdir -p "$RUN"

# One writer a run. The lock is inherited by the training, so that one which outlived its script still holds it.
exec 9>"$RUN/lock"
if ! flock -n 9; then
    echo "$METHOD seed $SEED: another process works in $RUN; wait for it or end it" >&2
    exit 1
fi

settings=("method=$METHOD")
# DAPO's length penalty starts a fifth before the end, as in its paper; its preset has the figure for 4096 tokens
case "$METHOD" in *dapo) settings+=(reward.reward_kwargs.overlong_buffer_cfg.len=19) ;; esac
read -r -a overrides <<<"$OVERRIDES"

if [ ! -e "$RUN/done" ]; then
    # verl starts its log file anew, so each attempt gets a file of its own
    attempt=1
    while [ -e "$RUN/metrics.$attempt.jsonl" ] || [ -e "$RUN/train.$attempt.log" ]; do attempt=$((attempt + 1)); done
    export VERL_FILE_LOGGER_PATH="$(realpath "$RUN")/metrics.$attempt.jsonl"
    python -m verl.trainer.main_ppo --config-name=ispo_trainer backend=cpu "${settings[@]}" \
        data.train_files="$DATA/train.parquet" data.val_files="$DATA/heldout.parquet" data.seed="$SEED" \
        data.train_batch_size=16 data.max_prompt_length=32 data.max_response_length=96 \
        actor_rollout_ref.model.path="$BASE" \
        actor_rollout_ref.actor.optim.lr=1e-4 \
        actor_rollout_ref.actor.ppo_mini_batch_size=8 \
        actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=64 \
        actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=128 \
        actor_rollout_ref.rollout.seed="$SEED" \
        reward.custom_reward_function.path=pkg://verl_ispo.tiny_task.reward \
        trainer.total_training_steps="$STEPS" trainer.test_freq=10 trainer.val_before_train=true \
        trainer.save_freq=10 trainer.max_actor_ckpt_to_keep=2 \
        'actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]' \
        algorithm.ispo.dump_dir="$(realpath "$RUN")/dump" hydra.run.dir="$RUN" \
        trainer.project_name=tiny_task trainer.experiment_name="$METHOD-seed$SEED" \
        trainer.default_local_dir="$(realpath "$RUN")/checkpoints" \
        'trainer.logger=[console,file]' "${overrides[@]}" >"$RUN/train.$attempt.log" 2>&1 &
    training=$!
    trap 'kill -TERM $training 2>/dev/null || true' EXIT
    python -m verl_ispo.tiny_task.progress --metrics "$VERL_FILE_LOGGER_PATH" --pid "$training" --steps "$STEPS" \
        --label "$METHOD seed $SEED" 9>&- || true
    trap - EXIT
    if ! wait "$training"; then
        echo "$METHOD seed $SEED stopped; the last lines of $RUN/train.$attempt.log:" >&2
        tail -n 20 "$RUN/train.$attempt.log" >&2
        exit 1
    fi
    touch "$RUN/done"
fi

verl-ispo eval --model "$RUN/checkpoints" --method "$METHOD" --training-seed "$SEED" --base-model tiny --out "$RESULT" \
    --benchmarks "$DATA/heldout.parquet" --reward-function pkg://verl_ispo.tiny_task.reward \
    --n 4 --temperature 1.0 --max-new-tokens 96 >"$RUN/eval.log" 2>&1 || {
    echo "$METHOD seed $SEED: the evaluation stopped; the last lines of $RUN/eval.log:" >&2
    tail -n 20 "$RUN/eval.log" >&2
    exit 1
}
echo "   $METHOD seed $SEED: done ($RUN)"
