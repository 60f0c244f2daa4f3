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
#   METHODS="grpo ispo ispo_guarded"   any of `verl-ispo methods`
#   LEVELS=1-6        difficulty mix of the training problems (1-6: many groups without a right rollout; 1-4: few)
#   OUT=runs/quickstart
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/launch_checks.sh
source examples/tiny_start.sh
tiny_arguments "examples/$(basename "$0")" "$@"
source scripts/setup_cpu.sh
tiny_environment

STEPS="${STEPS:-25}" SEED="${SEED:-1}" METHODS="${METHODS:-grpo ispo ispo_guarded}" LEVELS="${LEVELS:-1-6}"
OUT="${OUT:-runs/quickstart}"
RUNS="$OUT/levels$LEVELS-seed$SEED-steps$STEPS"
started_s=$SECONDS
# shellcheck disable=SC2086
verl-ispo methods $METHODS >/dev/null

echo "== 1/5 the tiny model: a warm start on worked arithmetic"
tiny_base "$OUT/base"

echo "== 2/5 the problems: $OUT/data-levels$LEVELS"
tiny_problems "$OUT/data-levels$LEVELS" "$LEVELS"

echo "== 3/5 the start, evaluated: 300 held-out problems, greedy and 4 samples each"
tiny_evaluate "$OUT/base" Base "" "$OUT/data-levels$LEVELS" "$RUNS/results/Base" "$OUT/eval-base.log"

echo "== 4/5 training and evaluation: $METHODS, $STEPS steps each (Ctrl-C is safe: a second start goes on from the last checkpoint)"
runs=()
for method in $METHODS; do
    METHOD="$method" SEED="$SEED" STEPS="$STEPS" BASE="$OUT/base" DATA="$OUT/data-levels$LEVELS" \
        RUN="$RUNS/$method" RESULT="$RUNS/results/$method" bash examples/tiny_run.sh
    runs+=("$RUNS/$method")
done

echo "== 5/5 what happened"
python -m verl_ispo.tiny_task.compare_runs --runs "${runs[@]}" --out "$RUNS"
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
