#!/usr/bin/env bash
# GRPO, ISPO as in the paper, and ISPO with a guard, from one start, on verl's own trainer, on a CPU.
#
#   bash examples/quickstart.sh
#
# Makes .venv, a tiny Qwen2 model warmed up on worked arithmetic, trains each method from that start, and prints a table
# and the path of a picture. What is there already is used again: a second start resumes, or only prints.
#
#   STEPS=30          training steps of each method
#   SEED=1            of data order and rollouts
#   METHODS="grpo ispo ispo_guarded"
#   LEVELS=1-6        difficulty mix of the training problems (1-6: many groups without a right rollout; 1-4: few)
#   OUT=runs/quickstart
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0"; exit 0 ;;
    "") ;;
    *) echo "no arguments; settings are environment variables, see --help" >&2; exit 2 ;;
esac
source scripts/setup_cpu.sh

STEPS="${STEPS:-30}" SEED="${SEED:-1}" METHODS="${METHODS:-grpo ispo ispo_guarded}" LEVELS="${LEVELS:-1-6}"
OUT="${OUT:-runs/quickstart}"
RUNS="$OUT/levels$LEVELS-seed$SEED-steps$STEPS"
export VERL_PLATFORM=cpu OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 RAY_DEDUP_LOGS=0
started_s=$SECONDS

echo "== 1/4 the tiny model: a warm start on worked arithmetic"
python -m verl_ispo.tiny_task.warm_start --out "$OUT/base"

echo "== 2/4 the problems: $OUT/data-levels$LEVELS"
python -m verl_ispo.tiny_task.make_data --out "$OUT/data-levels$LEVELS" --levels "$LEVELS"

train() {
    local method="$1" run="$RUNS/$1" settings=()
    case "$method" in
        # the trainer of ISPO with the estimator and loss of verl's GRPO: the signals are logged, not trained on
        grpo) settings=(algorithm.adv_estimator=grpo actor_rollout_ref.actor.policy_loss.loss_mode=vanilla) ;;
        ispo) settings=(ispo@algorithm.ispo=paper) ;;
        ispo_guarded) settings=(ispo@algorithm.ispo=guarded) ;;
        *) echo "unknown method '$method'; known: grpo ispo ispo_guarded" >&2; return 2 ;;
    esac
    if [ -e "$run/done" ]; then echo "   $method: done already ($run)"; return; fi
    mkdir -p "$run"
    # verl starts its log file anew, so each attempt gets a file of its own
    local attempt=1
    while [ -e "$run/metrics.$attempt.jsonl" ]; do attempt=$((attempt + 1)); done
    export VERL_FILE_LOGGER_PATH="$PWD/$run/metrics.$attempt.jsonl"
    python -m verl.trainer.main_ppo --config-name=ispo_trainer backend=cpu "${settings[@]}" \
        data.train_files="$OUT/data-levels$LEVELS/train.parquet" data.val_files="$OUT/data-levels$LEVELS/heldout.parquet" data.seed="$SEED" \
        data.train_batch_size=16 data.max_prompt_length=32 data.max_response_length=96 \
        actor_rollout_ref.model.path="$OUT/base" \
        actor_rollout_ref.actor.optim.lr=1e-4 \
        actor_rollout_ref.actor.ppo_mini_batch_size=8 \
        actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=64 \
        actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=128 \
        actor_rollout_ref.rollout.seed="$SEED" \
        reward.custom_reward_function.path=pkg://verl_ispo.tiny_task.reward \
        trainer.total_training_steps="$STEPS" trainer.test_freq=10 trainer.val_before_train=true \
        trainer.save_freq=10 trainer.max_actor_ckpt_to_keep=1 \
        trainer.project_name=quickstart trainer.experiment_name="$method" \
        trainer.default_local_dir="$PWD/$run/checkpoints" \
        'trainer.logger=[console,file]' >"$run/train.$attempt.log" 2>&1 &
    local training=$!
    trap 'kill -TERM $training 2>/dev/null || true' EXIT
    python -m verl_ispo.tiny_task.progress --metrics "$VERL_FILE_LOGGER_PATH" --pid "$training" --steps "$STEPS" \
        --label "$method" || true
    trap - EXIT
    if ! wait "$training"; then
        echo "$method stopped; the last lines of $run/train.$attempt.log:" >&2
        tail -n 20 "$run/train.$attempt.log" >&2
        return 1
    fi
    touch "$run/done"
}

echo "== 3/4 training: $METHODS, $STEPS steps each (Ctrl-C is safe: a second start goes on from the last checkpoint)"
runs=()
for method in $METHODS; do
    train "$method"
    runs+=("$RUNS/$method")
done

echo "== 4/4 what happened"
python -m verl_ispo.tiny_task.summary --runs "${runs[@]}" --out "$RUNS"
echo "took $(((SECONDS - started_s + 30) / 60)) minutes after the installation"
