#!/usr/bin/env bash
# Several methods x several seeds on the tiny task, from one start, with paired intervals: docs/tiny_study.md has the
# question, the measures and the decision rule, fixed before the runs.
#
#   bash examples/tiny_study.sh
#
# Makes .venv, the tiny model and its problems as examples/quickstart.sh does, trains and evaluates every cell, and ends
# with a table, a report and the choice of the guard. Finished parts are not repeated: a second start resumes. A cell
# that fails does not stop the others; a second start tries it again.
#
#   METHODS="..."     any of `verl-ispo methods` (default: GRPO, ISPO and five guards; all in docs/tiny_study.md)
#   SEEDS="1 2 3"     of data order and rollouts
#   STEPS=20          training steps of each run
#   LEVELS=1-6        difficulty mix of the training problems
#   JOBS=2            parallel runs: one core and 5 GiB of memory each
#   OUT=runs/tiny_study   folder of all files
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/variables.sh
no_arguments "examples/$(basename "$0")" "$@"
source scripts/setup_cpu.sh
values STEPS LEVELS JOBS OUT
words METHODS SEEDS
exec python -m verl_ispo.tiny_task.study_runs "${options[@]}"
