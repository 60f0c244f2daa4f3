#!/usr/bin/env bash
# Starts the head of a Ray cluster without Slurm, on the first node. Then start_worker.sh on each other node, and train.sh.
#
#   bash scripts/ray/start_head.sh                                                  # node 1; prints host:port
#   RAY_ADDRESS=node1:6379 bash scripts/ray/start_worker.sh                         # nodes 2, 3, 4
#   python scripts/ray/wait_for_nodes.py --address node1:6379 --nodes 4 --gpus 32   # node 1
#   RAY_ADDRESS=node1:6379 NNODES=4 MODEL=qwen2_5_math_7b DATA=/shared/math OUT=/shared/runs/ispo bash scripts/train.sh
#   ray stop                                                                        # each node, at the end
#
# Every node needs the same environment (verl_ispo installed; `verl-ispo doctor` says so) and the same view of data,
# models and OUT. Export NCCL_SOCKET_IFNAME and similar variables first: processes get the environment of their `ray start`.
# Ray's token (~/.ray/auth_token, RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN), if the first node has one, must be the same on
# all nodes; `ray get-auth-token --generate` makes it. RAY_AUTH_MODE=disabled on every node turns tokens off.
#
#   PORT=6379             of the head
#   NODE_IP=              address by which the other nodes reach this one (default: Ray's choice)
#   NUM_GPUS=             GPUs to offer (default: all that Ray sees; with VERL_PLATFORM=cpu 1 logical GPU: set it to
#                         train.sh's GPUS_PER_NODE, so that each node gets its share of the workers)
#   NUM_CPUS=             cores to offer (default: all; with VERL_PLATFORM=cpu 32 logical ones)
#   TEMP_DIR=             folder of Ray's logs and sockets on all nodes; a short path (default: Ray's, /tmp/ray)
#   BLOCK=0               1: stay in the foreground until Ray ends
#   VERL_PLATFORM=        cpu: for the CPU back end
#   PYTHON=python         interpreter of the environment
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../variables.sh"
no_arguments "$0" "$@"
values PORT NODE_IP NUM_GPUS NUM_CPUS TEMP_DIR
flags BLOCK
check_installed "${PYTHON:-python}"
# VERL_PLATFORM is read by ray_node
exec "${PYTHON:-python}" -m verl_ispo.launch.ray_node head "${options[@]}"
