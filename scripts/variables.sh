# What the scripts share: their help, and environment variables as options of a command. Sourced, not run.
# shellcheck shell=bash

# values NAME..., words NAME..., flags NAME... add to these; an empty variable counts as not set
options=()

# print_help SCRIPT: the comment at its top
print_help() {
    sed -n '2,/^[^#]/{/^#SBATCH/d;s/^# \{0,1\}//;/^set /d;p}' "$1"
}

# no_arguments SCRIPT ARGUMENTS...: accept --help and refuse everything else
no_arguments() {
    case "${2:-}" in
        -h | --help) print_help "$1"; exit 0 ;;
        "") ;;
        *) echo "no arguments; settings are environment variables, see --help" >&2; exit 2 ;;
    esac
}

# _option NAME: the option of a variable; TRAIN_TP is --train-tp
_option() {
    local name="${1,,}"
    echo "--${name//_/-}"
}

# values NAME...: add each option with its value
values() {
    local name
    for name in "$@"; do
        if [ -n "${!name:-}" ]; then options+=("$(_option "$name")" "${!name}"); fi
    done
}

# words NAME...: add each option with the words of its value
words() {
    local name list
    for name in "$@"; do
        read -r -a list <<<"${!name:-}"
        if [ "${#list[@]}" != 0 ]; then options+=("$(_option "$name")" "${list[@]}"); fi
    done
}

# flags NAME...: add each option, without a value, if the variable is 1
flags() {
    local name
    for name in "$@"; do
        case "${!name:-0}" in
            0) ;;
            1) options+=("$(_option "$name")") ;;
            *) echo "$name=${!name} is not known. Known: 0 1" >&2; exit 2 ;;
        esac
    done
}

# absolute NAME...: paths as the caller's shell sees them, before the script changes its folder
absolute() {
    local name
    for name in "$@"; do
        if [ -e "${!name:-}" ]; then printf -v "$name" %s "$(realpath "${!name}")"; fi
    done
}

# check_installed PYTHON: stop if this package or Ray is not installed on this node
check_installed() {
    if ! "$1" -c 'import importlib.metadata as m; m.version("verl_ispo"), m.version("ray")' 2>/dev/null; then
        echo "$(hostname): verl_ispo or ray is not installed for $1; pip install . there, or set PYTHON" >&2
        exit 2
    fi
}
