# How run_all.sh writes down what came of each check, in OUT/summary.txt, within TOTAL_S seconds. Sourced, not run.
# shellcheck shell=bash

failed=0
declare -A tried=()

# keep_passed: begin a summary with what passed before, which is not run again
keep_passed() {
    local earlier
    touch "$OUT/summary.txt"
    earlier="$(grep ': passed' "$OUT/summary.txt")"
    printf '%s' "${earlier:+$earlier$'\n'}" >"$OUT/summary.txt"
}

# has_passed NAME
has_passed() { grep -q "^$1: passed" "$OUT/summary.txt"; }

# one NAME LIMIT COMMAND...: run it, for LIMIT seconds at most, and write down what came of it; what has passed before, or
# has failed in this call of the script, is not run again
one() {
    local name="$1" limit="$2" log="${1// /-}" begin=$SECONDS left=$((TOTAL_S - SECONDS)) outcome status=0
    shift 2
    log="$OUT/${log//:/-}.log"
    if has_passed "$name"; then return 0; fi
    if [ -n "${tried[$name]:-}" ]; then return 1; fi
    tried[$name]=yes
    if [ "$left" -lt 1 ]; then
        echo "$name: not reached within TOTAL_S=$TOTAL_S s; the same command goes on with it" >>"$OUT/summary.txt"
        failed=1
        return 1
    fi
    echo "== $name, log $log"
    timeout --kill-after=30 "$((limit < left ? limit : left))" "$@" 2>&1 | tee "$log" || status=$?
    case "$status" in
        0) outcome=passed ;;
        124 | 137) outcome="ended at its time limit" failed=1 ;;
        *) outcome=FAILED failed=1 ;;
    esac
    echo "$name: $outcome after $((SECONDS - begin)) s, log $log" >>"$OUT/summary.txt"
    return "$status"
}
