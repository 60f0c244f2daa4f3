#!/usr/bin/env bash
# Sets up .venv on a fresh machine, then lints and tests.
#
#   bash scripts/test.sh                      # the suite; under 15 minutes on 2 cores
#   bash scripts/test.sh quick                # pure maths, methods, grading, config; under 2 minutes
#   bash scripts/test.sh all                  # everything: all examples, kills, cells of the dry run; about an hour
#   bash scripts/test.sh vllm                 # verl's real vLLM rollout on this CPU, in .venv-vllm; 15 minutes
#   bash scripts/test.sh megatron             # verl's Megatron engine on the CPU, which the others skip; 15 minutes
#   bash scripts/test.sh megatron_short       # the part of it that CI runs; a minute or two
#   bash scripts/test.sh tests/signals -x     # any pytest arguments
#
# WORKERS=2               parallel test processes (default: one per core, 4 at most), of which at most two train
# HYPOTHESIS_PROFILE=suite   examples of each property test: suite (the same ones every time), all (more, and new ones;
#                         the default of `all`)
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = vllm ]; then source scripts/setup_vllm_cpu.sh; else source scripts/setup_cpu.sh; fi

# One thread per process: on few cores, several processes with a thread pool each wait for one another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
# nproc would take the number of threads above for that of the cores
cores="$(unset OMP_NUM_THREADS; nproc)"
WORKERS="${WORKERS:-$((cores < 4 ? cores : 4))}"
# a file's tests stay together, and so do all trainings (tests/conftest.py)
side_by_side=(-q -n "$WORKERS" --dist loadfile --no-loadscope-reorder)

ruff check .
ruff format --check .
case "${1:-}" in
    "") exec python -m pytest "${side_by_side[@]}" -m "not volume" --durations=15 ;;
    quick)
        exec python -m pytest "${side_by_side[@]}" -m "not volume and not trainer" \
            tests/signals tests/methods tests/grading tests/config
        ;;
    all)
        export HYPOTHESIS_PROFILE="${HYPOTHESIS_PROFILE:-all}"
        exec python -m pytest "${side_by_side[@]}" --durations=30
        ;;
    # one at a time: verl gives the trainings of one machine the same name of the socket that brings the weights. What hangs
    # ends after 15 minutes per test
    vllm)
        exec python -m pytest -q tests/vllm --durations=15 -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true \
            "${@:2}"
        ;;
    megatron | megatron_short)
        source scripts/setup_megatron_cpu.sh
        if [ "$1" = megatron_short ]; then marks=(-m "not volume"); else marks=(); fi
        exec python -m pytest -q "${marks[@]}" --durations=10 tests/megatron
        ;;
    *) exec python -m pytest "$@" ;;
esac
