#!/usr/bin/env bash
# One method, one seed on the tiny task: training on verl's own trainer, then evaluation. A second start resumes.
#
#   METHOD=ispo SEED=1 BASE=runs/quickstart/base DATA=runs/quickstart/data-levels1-6 RUN=runs/mine bash examples/tiny_run.sh
#
# Needs the environment of scripts/setup_cpu.sh, activated. examples/quickstart.sh and examples/tiny_study.sh do the same
# for each of their runs; the training itself is `verl-ispo train`, as on a cluster.
#
#   METHOD=ispo          any method of `verl-ispo methods`
#   SEED=1               of data order and rollouts
#   STEPS=25             training steps
#   BASE=...             the warm-started model      (python -m verl_ispo.tiny_task.warm_start)
#   DATA=...             train and held-out problems (python -m verl_ispo.tiny_task.make_data)
#   RUN=...              folder of this run: logs, checkpoints, rollout dump
#   RESULT=$RUN/result   folder of the evaluation
#   OVERRIDES=           more Hydra overrides, separated by spaces
#   PYTHON=python        interpreter of the environment
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/variables.sh
no_arguments "examples/$(basename "$0")" "$@"
values METHOD SEED STEPS BASE DATA RUN RESULT
read -r -a overrides <<<"${OVERRIDES:-}"
exec "${PYTHON:-python}" -m verl_ispo.tiny_task.tiny_run "${options[@]}" -- "${overrides[@]}"
