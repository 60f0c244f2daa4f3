# What the tiny examples share: environment, warm-started model, problems, evaluation. Sourced, not run.
# shellcheck shell=bash

# tiny_arguments SCRIPT ARGUMENTS...: --help, and nothing else
tiny_arguments() {
    local script="$1"
    shift
    case "${1:-}" in
        -h | --help) print_help "$script"; exit 0 ;;
        "") ;;
        *) echo "no arguments; settings are environment variables, see --help" >&2; exit 2 ;;
    esac
}

# tiny_environment: of every process of a training and an evaluation
tiny_environment() {
    export VERL_PLATFORM=cpu OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
}

# tiny_base FOLDER: the warm-started model, made once
tiny_base() {
    python -m verl_ispo.tiny_task.warm_start --out "$1"
}

# tiny_problems FOLDER LEVELS: training and held-out problems, made once
tiny_problems() {
    python -m verl_ispo.tiny_task.make_data --out "$1" --levels "$2"
}

# tiny_evaluate MODEL METHOD SEED DATA RESULT LOG: 300 held-out problems, greedy and 4 samples each
tiny_evaluate() {
    local seed=()
    if [ -n "$3" ]; then seed=(--training-seed "$3"); fi
    verl-ispo eval --model "$1" --method "$2" "${seed[@]}" --base-model tiny --out "$5" \
        --benchmarks "$4/heldout.parquet" --reward-function pkg://verl_ispo.tiny_task.reward \
        --n 4 --temperature 1.0 --max-new-tokens 96 >"$6" 2>&1 || {
        echo "$2: the evaluation stopped; the last lines of $6:" >&2
        tail -n 20 "$6" >&2
        return 1
    }
}
