#!/usr/bin/env bash
# Makes .venv with the pinned CPU set; a second call finds it and returns.
#
#   source scripts/setup_cpu.sh        # and the environment is active in this shell
#
# PYTHON=...  interpreter to use (default: the first of python3.11, 3.12, 3.10, python3 that is 3.10 to 3.12)
# VENV=...    where the environment goes (default: .venv in the repository)
#
# pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS ...) hold. On Linux the plain torch wheel brings
# several GB of CUDA packages; point PIP_EXTRA_INDEX_URL at PyTorch's CPU wheels to leave them out.
set -euo pipefail

_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$_root/scripts/pinned_environment.sh"
pinned_environment "${VENV:-$_root/.venv}" cpu
