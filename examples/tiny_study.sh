#!/usr/bin/env bash
# Several methods x several seeds on the tiny task, from one start, with paired intervals: docs/tiny_study.md has the
# question, the measures and the rule, written before the runs.
#
#   bash examples/tiny_study.sh
#
# Makes .venv, the tiny model and its problems as examples/quickstart.sh does, trains and evaluates every cell, and ends
# with a table, a report and the choice of the guard. What is there is used again: a second start resumes. A cell that
# fails does not stop the others; a second start tries it again.
#
#   METHODS="..."     any of `verl-ispo methods` (default: GRPO, ISPO and five guards; all in docs/tiny_study.md)
#   SEEDS="1 2 3"     of data order and rollouts
#   STEPS=20          training steps of each run
#   LEVELS=1-6        difficulty mix of the training problems
#   JOBS=2            runs at a time: one core and 5 GiB of memory each
#   OUT=runs/tiny_study
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/launch_checks.sh
source examples/tiny_start.sh
tiny_arguments "examples/$(basename "$0")" "$@"
source scripts/setup_cpu.sh
tiny_environment

GUARDS="ispo_off ispo_informative ispo_reference_std ispo_capped_ifd ispo_informative_capped"
METHODS="${METHODS:-grpo ispo $GUARDS}" SEEDS="${SEEDS:-1 2 3}" STEPS="${STEPS:-20}" LEVELS="${LEVELS:-1-6}" JOBS="${JOBS:-2}"
OUT="${OUT:-runs/tiny_study}"
RUNS="$OUT/levels$LEVELS-steps$STEPS"
started_s=$SECONDS
# shellcheck disable=SC2086
verl-ispo methods $METHODS >/dev/null

echo "== 1/4 the tiny model and its problems: $OUT"
tiny_base "$OUT/base"
tiny_problems "$OUT/data-levels$LEVELS" "$LEVELS"

cells=$(for seed in $SEEDS; do for method in $METHODS; do echo "$method $seed"; done; done)
echo "== 2/4 training and evaluation: $(wc -l <<<"$cells") runs of $STEPS steps, $JOBS at a time (Ctrl-C is safe)"
failed=0
# the evaluation after the last step is what counts; verl's validations on the way would cost a fifth of the time
export OVERRIDES="trainer.test_freq=-1 trainer.val_before_train=false"
BASE="$OUT/base" DATA="$OUT/data-levels$LEVELS" STEPS="$STEPS" RUNS="$RUNS" xargs -P "$JOBS" -L 1 bash -c '
    METHOD="$0" SEED="$1" RUN="$RUNS/seed$1/$0" bash examples/tiny_run.sh' <<<"$cells" || failed=1

results=()
for seed in $SEEDS; do for method in $METHODS; do
    [ ! -e "$RUNS/seed$seed/$method/result/summary.json" ] || results+=("$RUNS/seed$seed/$method/result")
done; done
if [ "${#results[@]}" = 0 ]; then echo "no run has ended well; see above" >&2; exit 1; fi

echo "== 3/4 the table and the report"
baseline=grpo
case " $METHODS " in *" grpo "*) ;; *) baseline="${METHODS%% *}" ;; esac
verl-ispo table "${results[@]}" --out "$RUNS/table" --baseline "$baseline" --metrics pass@1_greedy avg@4 >/dev/null
first_seed="${SEEDS%% *}"
runs=()
for method in $METHODS; do
    [ ! -e "$RUNS/seed$first_seed/$method/done" ] || runs+=("$RUNS/seed$first_seed/$method")
done
[ "${#runs[@]}" = 0 ] ||
    verl-ispo report "${runs[@]}" --table "$RUNS/table/scores.csv" --out "$RUNS/report" >/dev/null

echo "== 4/4 what the study says"
# shellcheck disable=SC2086
python -m verl_ispo.tiny_task.study --runs "$RUNS" --methods $METHODS --seeds $SEEDS --out "$RUNS/study.md"
echo
echo "Study:  $RUNS/study.md (measures, intervals, the guard by the rule of docs/tiny_study.md)"
echo "Table:  $RUNS/table/table.md (by level, with every comparison)"
echo "Report: $RUNS/report/report.html (seed $first_seed; open it in a browser, it needs no network)"
echo "took $(((SECONDS - started_s + 30) / 60)) minutes after the installation"
if [ "$failed" = 1 ]; then
    echo "some runs failed, see above; the same command tries them again" >&2
    exit 1
fi
