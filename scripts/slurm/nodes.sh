# The nodes of a job of scripts/slurm/train.sbatch: their addresses, what runs on them, and its end. Sourced, not run.
# shellcheck shell=bash

# address of each node, and the process ids of what was started
declare -A addresses
started=() training=""

# address_of NODE: its IPv4 address, on RAY_INTERFACE if that is set
address_of() {
    if [ -n "$RAY_INTERFACE" ]; then
        srun --overlap --nodes=1 --ntasks=1 -w "$1" ip -4 -o addr show dev "$RAY_INTERFACE" scope global |
            awk 'NR == 1 { split($4, part, "/"); print part[1] }'
    else
        getent ahostsv4 "$1" | awk 'NR == 1 { print $1 }'
    fi
}

# find_addresses: fill in `addresses`. A name that resolves to this machine itself (127.0.1.1 in Debian's /etc/hosts) is
# no address for the other nodes, which would try it for JOIN_TIMEOUT_S
find_addresses() {
    local node
    for node in "${nodes[@]}"; do
        addresses[$node]="$(address_of "$node" || true)"
        case "$NNODES ${addresses[$node]}" in
            "1 "?*) ;;
            *" " | *" 127."*)
                echo "$node has the address '${addresses[$node]}'${RAY_INTERFACE:+ on $RAY_INTERFACE}, by which no other" \
                    "node reaches it; set RAY_INTERFACE to the interface between the nodes, such as ib0 (ip -4 addr)" >&2
                exit 1 ;;
        esac
    done
}

# end_training: before its nodes, since it saves
end_training() {
    if [ -n "$training" ]; then kill -TERM "$training" 2>/dev/null || true; wait "$training" || true; fi
    training=""
}

# clean_up: the end of the job; each node's Ray processes end with their srun
clean_up() {
    end_training
    if [ "${#started[@]}" != 0 ]; then kill -TERM "${started[@]}" 2>/dev/null || true; fi
    wait || true
}

# on_node NODE ADDRESS COMMAND...: run a command on a node in the background until the job ends
on_node() {
    local node="$1" address="$2"
    shift 2
    # shellcheck disable=SC2086
    NODE_IP="$address" BLOCK=1 NUM_GPUS="$GPUS_PER_NODE" NUM_CPUS="$SRUN_CPUS_PER_TASK" \
        srun --overlap --nodes=1 --ntasks=1 -w "$node" --label $CONTAINER "$@" &
    started+=("$!")
}
