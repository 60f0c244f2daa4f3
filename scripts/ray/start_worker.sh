#!/usr/bin/env bash
# Another node of the Ray cluster whose head scripts/ray/start_head.sh has started; its --help has the whole order.
#
#   RAY_ADDRESS=node1:6379 bash scripts/ray/start_worker.sh
#
#   RAY_ADDRESS=          host:port of the head
#   NODE_IP=              address that the other nodes reach this one by (default: Ray's choice)
#   NUM_GPUS=             GPUs to offer (default: all that Ray sees; with VERL_PLATFORM=cpu logical ones, 1)
#   NUM_CPUS=             cores to offer (default: all; with VERL_PLATFORM=cpu logical ones, 32)
#   BLOCK=0               1: stay in the foreground until Ray ends
#   TRIES=30              how often to try, ten seconds apart, while the head does not answer
#   VERL_PLATFORM=        cpu: for the CPU back end
#   PYTHON=python         interpreter of the environment
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch_checks.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
    "") ;;
    *) echo "no arguments; settings are environment variables, see --help" >&2; exit 2 ;;
esac
RAY_ADDRESS="${RAY_ADDRESS:-}" NODE_IP="${NODE_IP:-}" NUM_GPUS="${NUM_GPUS:-}" NUM_CPUS="${NUM_CPUS:-}"
BLOCK="${BLOCK:-0}" TRIES="${TRIES:-30}" PYTHON="${PYTHON:-python}"
if [[ ! "$RAY_ADDRESS" =~ ^[^/]+:[0-9]+$ ]]; then
    echo "RAY_ADDRESS=$RAY_ADDRESS is not host:port; set it to the head's, as scripts/ray/start_head.sh prints it" >&2
    exit 2
fi
one_of BLOCK "$BLOCK" 0 1
whole_number TRIES "$TRIES"
check_installed "$PYTHON"
if [ "${VERL_PLATFORM:-}" = cpu ]; then NUM_GPUS="${NUM_GPUS:-1}" NUM_CPUS="${NUM_CPUS:-32}"; fi
head="$RAY_ADDRESS"
use_ray_token
unset RAY_ADDRESS
arguments=(start "--address=$head" --disable-usage-stats)
if [ -n "$NODE_IP" ]; then arguments+=("--node-ip-address=$NODE_IP"); fi
if [ -n "$NUM_GPUS" ]; then arguments+=("--num-gpus=$NUM_GPUS"); fi
if [ -n "$NUM_CPUS" ]; then arguments+=("--num-cpus=$NUM_CPUS"); fi
if [ "$BLOCK" = 1 ]; then arguments+=(--block); fi
tried=1
until (exec 3<>"/dev/tcp/${head%:*}/${head##*:}") 2>/dev/null; do
    if [ "$tried" -ge "$TRIES" ]; then
        echo "no answer from $head after $TRIES tries; is the head started, and the port open between the nodes?" >&2
        exit 1
    fi
    tried=$((tried + 1))
    sleep 10
done
exec "$PYTHON" -m ray.scripts.scripts "${arguments[@]}"
