#!/usr/bin/env bash
# GRPO, ISPO as in the paper, and ISPO with a guard, from one start, on verl's own trainer, on a CPU.
#
#   bash examples/quickstart.sh
#
# Makes .venv, a tiny Qwen2 model warmed up on worked arithmetic, trains each method from that start, evaluates all of
# them on held-out problems, and prints a summary, a table with intervals, and the paths of a picture and a report.
# Finished parts are not repeated: a second start resumes, or only prints.
#
#   STEPS=25          training steps per method
#   SEED=1            of data order and rollouts
#   METHODS="grpo ispo ispo_guarded"   any of `verl-ispo methods`
#   LEVELS=1-6        difficulty mix of the training problems (1-6: many groups without a correct rollout; 1-4: few)
#   OUT=runs/quickstart   folder of all files
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/variables.sh
no_arguments "examples/$(basename "$0")" "$@"
source scripts/setup_cpu.sh
values STEPS SEED LEVELS OUT
words METHODS
exec python -m verl_ispo.tiny_task.quickstart "${options[@]}"
