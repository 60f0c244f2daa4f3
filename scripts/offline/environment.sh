# The environment of a slim bundle that unpack.sh has unpacked; for the machine's one GPU, without a network. Sourced.
# shellcheck shell=bash
unpacked="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# in front of the machine's packages: verl wants another transformers
export PYTHONPATH="$unpacked/site${PYTHONPATH:+:$PYTHONPATH}"
# without a network there may be no interface but this one
export NCCL_SOCKET_IFNAME=lo GLOO_SOCKET_IFNAME=lo VLLM_HOST_IP=127.0.0.1
# Ray's token is for clusters
export RAY_AUTH_MODE=disabled
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# PyTorch's own attention for packed rows, since there is no flash-attn
export ATTENTION="${ATTENTION:-torch_varlen}"
