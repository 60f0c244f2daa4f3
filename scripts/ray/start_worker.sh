#!/usr/bin/env bash
# Adds a node to the Ray cluster whose head scripts/ray/start_head.sh has started; its --help lists all steps in order.
#
#   RAY_ADDRESS=node1:6379 bash scripts/ray/start_worker.sh
#
#   RAY_ADDRESS=          host:port of the head
#   NODE_IP=              address by which the other nodes reach this one (default: Ray's choice)
#   NUM_GPUS=             GPUs to offer (default: all that Ray sees; with VERL_PLATFORM=cpu 1 logical GPU)
#   NUM_CPUS=             cores to offer (default: all; with VERL_PLATFORM=cpu 32 logical ones)
#   BLOCK=0               1: stay in the foreground until Ray ends
#   TRIES=30              number of attempts, ten seconds apart, while the head does not answer
#   VERL_PLATFORM=        cpu: for the CPU back end
#   PYTHON=python         interpreter of the environment
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../variables.sh"
no_arguments "$0" "$@"
values RAY_ADDRESS NODE_IP NUM_GPUS NUM_CPUS TRIES
flags BLOCK
check_installed "${PYTHON:-python}"
# VERL_PLATFORM is read by ray_node
exec "${PYTHON:-python}" -m verl_ispo.launch.ray_node worker "${options[@]}"
