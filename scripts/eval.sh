#!/usr/bin/env bash
# One checkpoint on the five benchmarks: greedy, and N samples a problem at a temperature. Wraps `verl-ispo eval`.
#
#   RUN=runs/train/qwen2_5_math_1_5b/ispo-seed1 BENCHMARKS=~/data/math bash scripts/eval.sh
#   MODEL=qwen2_5_math_1_5b BENCHMARKS=~/data/math bash scripts/eval.sh     # the start that those runs share
#
# The same command goes on where a killed one stopped. All arguments are options of `verl-ispo eval`, and win.
#
#   RUN=                  folder of scripts/train.sh: its last checkpoint, with its model, method, seed and length
#   MODEL=                or a model: a preset of scripts/train.sh, a folder, a checkpoint of verl, organisation/name
#   MODEL_PATH=           where the weights of that preset are (default: its name on the hub)
#   MODEL_COPIES=runs/models   for copies with a longer context, as in scripts/train.sh
#   BENCHMARKS=           folder of data_prep with the five benchmarks
#   FILES=                parquet files instead, separated by spaces
#   OUT=                  folder of this evaluation (default: RUN/result, or runs/eval/<model>)
#   N=16                  samples of each problem beside the greedy one; 0: only that
#   TEMPERATURE=0.6       of the samples
#   TOP_P=1.0             of the samples
#   MAX_NEW_TOKENS=       longest response (default: what the run or the preset trains with, else 4096)
#   SAMPLING_SEED=0       of the sampling
#   SAMPLER=auto          auto, vllm, cpu
#   TENSOR_PARALLEL=1     GPUs for one model
#   REWARD=pkg://verl_ispo.grading   grader
#   BASE_MODEL= METHOD= SEED=   names in the table (default: the run's; as the paper writes them)
#   PYTHON=python         interpreter of the environment
#   PRINT_ONLY=0          1: print the command; nothing is started
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch_checks.sh"
case "${1:-}" in
    -h | --help) print_help "$0"; exit 0 ;;
esac
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
RUN="${RUN:-}" MODEL="${MODEL:-}" MODEL_PATH="${MODEL_PATH:-}" PYTHON="${PYTHON:-python}" PRINT_ONLY="${PRINT_ONLY:-0}"
MODEL_COPIES="$(realpath -m "${MODEL_COPIES:-runs/models}")"
BENCHMARKS="${BENCHMARKS:-}" FILES="${FILES:-}" OUT="${OUT:-}"
N="${N:-16}" TEMPERATURE="${TEMPERATURE:-0.6}" TOP_P="${TOP_P:-1.0}" SAMPLING_SEED="${SAMPLING_SEED:-0}"
SAMPLER="${SAMPLER:-auto}" TENSOR_PARALLEL="${TENSOR_PARALLEL:-1}" REWARD="${REWARD:-pkg://verl_ispo.grading}"
MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-}" BASE_MODEL="${BASE_MODEL:-}" METHOD="${METHOD:-}" SEED="${SEED:-}"
one_of PRINT_ONLY "$PRINT_ONLY" 0 1
one_of SAMPLER "$SAMPLER" auto vllm cpu

if [ -n "$RUN" ] && [ -n "$MODEL" ]; then
    echo "RUN=$RUN and MODEL=$MODEL: set one of them" >&2
    exit 2
fi
if [ -n "$RUN" ]; then
    if [ ! -e "$RUN/run.txt" ]; then
        echo "RUN=$RUN: no run.txt, so not a folder of scripts/train.sh; for a checkpoint of verl set MODEL to it" >&2
        exit 2
    fi
    noted() { sed -n "s/^$1=//p" "$RUN/run.txt"; }
    trained="$(noted MODEL)"
    METHOD="${METHOD:-$(noted METHOD)}" SEED="${SEED:-$(noted SEED)}"
    MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-$(noted RESPONSE_LENGTH)}"
    OUT="${OUT:-$RUN/result}"
    model="$RUN/checkpoints"
    # the hub's name of a preset is what the paper calls it
    if is_model_preset "$trained"; then BASE_MODEL="${BASE_MODEL:-$(preset_hub_name "$trained")}"; fi
    BASE_MODEL="${BASE_MODEL:-$(basename "$trained")}"
elif [ -n "$MODEL" ]; then
    check_model "$MODEL"
    model="$MODEL"
    OUT="${OUT:-runs/eval/$(basename "$MODEL")}"
    METHOD="${METHOD:-Base}"
    if is_model_preset "$MODEL"; then
        BASE_MODEL="${BASE_MODEL:-$(preset_hub_name "$MODEL")}"
        values="$("$PYTHON" "$scripts/composed_settings.py" --config-name ispo_trainer actor_rollout_ref.model.path \
            actor_rollout_ref.model.override_config.max_position_embeddings \
            actor_rollout_ref.model.override_config.rope_theta data.max_response_length -- "base_model=$MODEL" \
            ${MODEL_PATH:+"actor_rollout_ref.model.path=$(hydra_quoted "$MODEL_PATH")"})"
        { read -r model && read -r positions && read -r theta && read -r length; } <<<"$values"
        MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-$length}"
        if [ -n "$positions" ] && [ "$PRINT_ONLY" = 0 ]; then
            # the policy at step 0 has the context of the training
            model="$("$PYTHON" "$scripts/extend_context.py" --model "$model" --max-position-embeddings "$positions" \
                ${theta:+--rope-theta "$theta"} --out "$MODEL_COPIES/$(basename "$model")-$positions")"
        fi
    fi
    BASE_MODEL="${BASE_MODEL:-$(basename "$MODEL")}"
else
    echo "set RUN to a folder of scripts/train.sh, or MODEL to one of: $(preset_names base_model), a folder," \
        "organisation/name of the model hub" >&2
    exit 2
fi

read -r -a files <<<"$FILES"
if [ "${#files[@]}" = 0 ]; then
    if [ -z "$BENCHMARKS" ]; then
        echo "no problems: set BENCHMARKS to a folder of data_prep (python -m data_prep.aime24 --local_save_dir FOLDER," \
            "and so on), or FILES" >&2
        exit 2
    fi
    for benchmark in aime24 aime25 amc23 math500 olympiadbench; do files+=("$BENCHMARKS/$benchmark.parquet"); done
fi

command=("$PYTHON" -m verl_ispo.cli eval --model "$model" --base-model "$BASE_MODEL" --method "$(paper_name "$METHOD")"
    ${SEED:+--training-seed "$SEED"} --benchmarks "${files[@]}" --out "$OUT" --n "$N" --temperature "$TEMPERATURE"
    --top-p "$TOP_P" --max-new-tokens "${MAX_NEW_TOKENS:-4096}" --seed "$SAMPLING_SEED" --sampler "$SAMPLER"
    --tensor-parallel-size "$TENSOR_PARALLEL" --reward-function "$REWARD" "$@")
if [ "$PRINT_ONLY" = 1 ]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
exec "${command[@]}"
