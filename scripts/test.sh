#!/usr/bin/env bash
# Sets up .venv on a fresh machine, then lints and runs the tests, fast ones first.
#
#   bash scripts/test.sh                      # everything; on 2 busy cores about an hour
#   bash scripts/test.sh -m "not trainer"     # without the tests that start verl's trainer; half of that
#   bash scripts/test.sh tests/signals -x     # any pytest arguments
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_cpu.sh

# One thread a process: several processes with a pool each on few cores wait for one another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

ruff check .
ruff format --check .
if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi
python -m pytest -q -m "not trainer"
python -m pytest -q -m trainer
