# What the launchers share: their help, refusals that list what is known, quoting for Hydra. Sourced, not run.
# shellcheck shell=bash

_launch_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_launch_config="$_launch_root/verl_ispo/config"

# print_help SCRIPT: the comment at its top
print_help() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//;/^set /d;p}' "$1"
}

# one_of NAME VALUE KNOWN...: refuses a value that is not known
one_of() {
    local name="$1" value="$2" known
    shift 2
    for known in "$@"; do
        if [ "$value" = "$known" ]; then return; fi
    done
    echo "$name=$value is not known. Known: $*" >&2
    exit 2
}

# whole_number NAME VALUE: refuses anything but 1, 2, 3, ...
whole_number() {
    if [[ ! "$2" =~ ^[1-9][0-9]*$ ]]; then
        echo "$1=$2 is not a whole number from 1; set for instance $1=1" >&2
        exit 2
    fi
}

# preset_names method|base_model: the files of that config group
preset_names() {
    local file names=()
    for file in "$_launch_config/$1"/*.yaml; do names+=("$(basename "$file" .yaml)"); done
    echo "${names[@]}"
}

# greatest_common_divisor A B
greatest_common_divisor() {
    local a="$1" b="$2" rest
    while [ "$b" != 0 ]; do rest=$((a % b)) a="$b" b="$rest"; done
    echo "$a"
}

# check_method METHOD
check_method() {
    # shellcheck disable=SC2046
    one_of METHOD "$1" $(preset_names method)
}

# is_model_preset MODEL
is_model_preset() {
    [ -e "$_launch_config/base_model/$1.yaml" ]
}

# check_model MODEL: a preset, a folder, or organisation/name of the hub
check_model() {
    if is_model_preset "$1" || [ -d "$1" ] || [[ "$1" =~ ^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$ ]]; then return; fi
    echo "MODEL=$1 is not known. Known: $(preset_names base_model), a folder, or organisation/name of the model hub" >&2
    exit 2
}

# hydra_quoted TEXT: as a string of Hydra's grammar, whatever it holds. Backslashes count there only before a quote.
hydra_quoted() {
    printf "'%s'" "$(sed -E "s/(\\\\+)('|\$)/\1\1\2/g; s/'/\\\\'/g" <<<"$1")"
}

# hydra_list TEXT...: a list of such strings
hydra_list() {
    local text joined=""
    for text in "$@"; do joined+="${joined:+,}$(hydra_quoted "$text")"; done
    printf '[%s]' "$joined"
}

# preset_hub_name MODEL: the last part of a preset's name on the hub, which is what the paper calls the model
preset_hub_name() {
    sed -n 's#^ *path: [^/]*/##p' "$_launch_config/base_model/$1.yaml"
}

# paper_name METHOD: what the paper's table calls a preset, so that its rows stand beside ours
paper_name() {
    case "$1" in
        grpo) echo GRPO ;;
        dr_grpo) echo Dr.GRPO ;;
        dapo) echo DAPO ;;
        progrpo) echo ProGRPO ;;
        prepo) echo PREPO ;;
        gtpo) echo GTPO ;;
        grpo_s) echo GRPO-S ;;
        ispo) echo ISPO ;;
        *) echo "$1" ;;
    esac
}

# use_ray_token: a head asks for Ray's token where there is one, but other commands of Ray bring theirs only when told to
use_ray_token() {
    if [ -n "${RAY_AUTH_MODE:-}" ]; then return; fi
    if [ -n "${RAY_AUTH_TOKEN:-}" ] || [ -e "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
        export RAY_AUTH_MODE=token
    fi
}

# why_it_stopped LOG: the worker that died, as the trainer or Ray names it, else the last error; nothing if there is none
why_it_stopped() {
    awk '
        { gsub(/\033\[[0-9;]*m/, ""); sub(/^\([^)]*\) /, "") }
        /DeadWorkerError: / { named = $0; sub(/^.*DeadWorkerError: /, "", named) }
        /^[A-Za-z_][A-Za-z0-9_.]*(Error|Exception|Interrupt)(\([A-Za-z]+\))?: / { last = $0 }
        /ActorDiedError: / { in_dead = 1 }
        in_dead && $1 == "class_name:" { dead = $2; sub(/^.*\./, "", dead) }
        in_dead && $1 == "pid:" { pid = $2 }
        in_dead && $1 == "ip:" { ip = $2; in_dead = 0 }
        END {
            if (named != "") print named
            else if (dead != "") print dead " (pid " pid " on " ip ") died"
            else print last
        }' "$1"
}

# check_installed PYTHON: that verl would find this package on this node
check_installed() {
    if ! "$1" -c 'import importlib.metadata as m; m.version("verl_ispo"), m.version("ray")' 2>/dev/null; then
        echo "$(hostname): verl_ispo or ray is not installed for $1; pip install . there, or set PYTHON" >&2
        exit 2
    fi
}
