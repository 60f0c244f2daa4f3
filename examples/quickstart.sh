#!/usr/bin/env bash
# GRPO, ISPO as in the paper, and ISPO with a guard, from one start, on verl's own trainer, on a CPU.
#
#   bash examples/quickstart.sh
#
# Makes .venv, a tiny Qwen2 model warmed up on worked arithmetic, trains each method from that start, evaluates all of
# them on held-out problems, and prints what happened, a table with intervals, and the paths of a picture and a report.
# What is there already is used again: a second start resumes, or only prints.
#
#   STEPS=25          training steps of each method
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

STEPS="${STEPS:-25}" SEED="${SEED:-1}" METHODS="${METHODS:-grpo ispo ispo_guarded}" LEVELS="${LEVELS:-1-6}"
OUT="${OUT:-runs/quickstart}"
RUNS="$OUT/levels$LEVELS-seed$SEED-steps$STEPS"
export VERL_PLATFORM=cpu OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 RAY_DEDUP_LOGS=0
started_s=$SECONDS

echo "== 1/5 the tiny model: a warm start on worked arithmetic"
python -m verl_ispo.tiny_task.warm_start --out "$OUT/base"

echo "== 2/5 the problems: $OUT/data-levels$LEVELS"
python -m verl_ispo.tiny_task.make_data --out "$OUT/data-levels$LEVELS" --levels "$LEVELS"

train() {
    local method="$1" run="$RUNS/$1" data="$OUT/data-levels$LEVELS" settings=()
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
        data.train_files="$data/train.parquet" data.val_files="$data/heldout.parquet" data.seed="$SEED" \
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
        'actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]' \
        algorithm.ispo.dump_dir="$PWD/$run/dump" hydra.run.dir="$run" \
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

echo "== 3/5 training: $METHODS, $STEPS steps each (Ctrl-C is safe: a second start goes on from the last checkpoint)"
runs=()
for method in $METHODS; do
    train "$method"
    runs+=("$RUNS/$method")
done

evaluate() {
    verl-ispo eval --model "$1" --method "$2" --base-model tiny --out "$RUNS/results/$2" "${@:3}" \
        --benchmarks "$OUT/data-levels$LEVELS/heldout.parquet" --reward-function pkg://verl_ispo.tiny_task.reward \
        --n 4 --temperature 1.0 --max-new-tokens 96 >"$RUNS/eval-$2.log" 2>&1 || {
        tail -n 20 "$RUNS/eval-$2.log" >&2
        return 1
    }
    echo "   $2: $RUNS/results/$2"
}

echo "== 4/5 evaluation: 300 held-out problems, greedy and 4 samples each"
evaluate "$OUT/base" Base
for method in $METHODS; do
    evaluate "$RUNS/$method/checkpoints" "$method" --training-seed "$SEED"
done

echo "== 5/5 what happened"
python -m verl_ispo.tiny_task.summary --runs "${runs[@]}" --out "$RUNS"
results=("$RUNS/results/Base")
for method in $METHODS; do results+=("$RUNS/results/$method"); done
baseline=Base
case " $METHODS " in *" grpo "*) baseline=grpo ;; esac
verl-ispo table "${results[@]}" --out "$RUNS/table" --baseline "$baseline" --metrics pass@1_greedy avg@4 >/dev/null
verl-ispo report "${runs[@]}" --table "$RUNS/table/scores.csv" --out "$RUNS/report" >/dev/null
awk -F'|' '
    /^## Against/ { against = 1; print "\n" substr($0, 4) " (points, 95 % interval, p after Holm over all comparisons of the table)" }
    /^## Runs/ { exit }
    /^## / && !against { print "\nHeld-out accuracy in %, mean over levels: " substr($0, 4) }
    /^\| tiny/ && !against { printf "  %-15s%s\n", $3, $(NF - 1) }
    /^\| tiny/ && against && $4 ~ /Average/ { printf "  %-15s%-16s%s%s p =%s\n", $3, $5, $7, $8, $11 }
' "$RUNS/table/table.md"
echo
echo "Table:  $RUNS/table/table.md (by level, with every comparison)"
echo "Report: $RUNS/report/report.html (open it in a browser; it needs no network)"
echo "took $(((SECONDS - started_s + 30) / 60)) minutes after the installation"
