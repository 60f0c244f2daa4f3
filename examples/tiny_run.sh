#!/usr/bin/env bash
# One method, one seed on the tiny task: training on verl's own trainer, then evaluation. A second start resumes.
#
#   METHOD=ispo SEED=1 BASE=runs/quickstart/base DATA=runs/quickstart/data-levels1-6 RUN=runs/mine bash examples/tiny_run.sh
#
# examples/quickstart.sh and examples/tiny_study.sh call it for each of their runs, with the environment active. The
# training itself is scripts/train.sh, as on a cluster.
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
source scripts/launch_checks.sh
source examples/tiny_start.sh
tiny_arguments "examples/$(basename "$0")" "$@"
tiny_environment

METHOD="${METHOD:-ispo}" SEED="${SEED:-1}" STEPS="${STEPS:-25}" OVERRIDES="${OVERRIDES:-}"
BASE="${BASE:?folder of the warm-started model, see --help}" DATA="${DATA:?folder of the problems, see --help}"
RUN="${RUN:?folder of this run, see --help}" RESULT="${RESULT:-$RUN/result}"
read -r -a overrides <<<"$OVERRIDES"

MODEL="$BASE" REWARD=pkg://verl_ispo.tiny_task.reward OUT="$RUN" ROLLOUT=cpu SCREEN=progress SAVE_FREQ=10 TEST_FREQ=10 \
    METHOD="$METHOD" SEED="$SEED" STEPS="$STEPS" DATA="$DATA" bash scripts/train.sh \
    data.train_batch_size=16 data.max_prompt_length=32 data.max_response_length=96 \
    actor_rollout_ref.actor.optim.lr=1e-4 \
    actor_rollout_ref.actor.ppo_mini_batch_size=8 \
    'actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]' \
    trainer.val_before_train=true "${overrides[@]}"

tiny_evaluate "$RUN/checkpoints" "$METHOD" "$SEED" "$DATA" "$RESULT" "$RUN/eval.log"
