"""Running the launchers: where they are, and a stand-in for their interpreter that notes every call."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
LAUNCHERS = (
    *("train.sh", "eval.sh", "reproduce_table.sh", "offline_bundle.sh"),
    *("ray/start_head.sh", "ray/start_worker.sh", "slurm/train.sbatch"),
    *("gpu/bench_step.sh", "gpu/run_all.sh"),
)
MODELS = ("qwen2_5_7b", "qwen2_5_math_1_5b", "qwen2_5_math_7b")

# Answers as the programs would that the launchers call by $PYTHON, and notes each call in $NOTES. $FAIL is a pattern of
# calls that fail, $HANG one of calls that stay.
STAND_IN = r"""#!/usr/bin/env bash
call="$*"
printf '%s\n' "$call" >>"$NOTES"
case "$call" in
    *composed_settings.py*) printf '%s\n' some/model "" "" "" 4096 512 256 8 ;;
    "-c "*) [ -z "${FAIL_CHECK:-}" ] || exit 1 ;;
esac
if [ -n "${FAIL:-}" ]; then case "$call" in $FAIL) echo "made to fail"; exit 3 ;; esac; fi
if [ -n "${HANG:-}" ]; then
    case "$call" in $HANG)
        trap 'printf "ended: %s\n" "$call" >>"$NOTES"; exit 143' TERM
        for _ in $(seq 600); do sleep 0.1; done ;;
    esac
fi
case "$call" in
    *"verl_ispo.cli eval"*)
        out="${call##*--out }"; out="${out%% *}"
        mkdir -p "$out"; echo '{}' >"$out/summary.json" ;;
esac
"""


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without what the launchers read, and then `variables`."""
    read = {name for launcher in LAUNCHERS for name in variables_read(SCRIPTS / launcher)}
    kept = {name: value for name, value in os.environ.items() if name not in read and not name.startswith("SLURM_")}
    return {**kept, **variables}


def variables_read(script: Path) -> set[str]:
    """Environment variables that a script reads with a default."""
    return set(re.findall(r"\$\{([A-Z][A-Z0-9_]*):[-?]", script.read_text(encoding="utf-8")))


def launch(
    launcher: str, *arguments: str, cwd: Path, timeout_s: float = 300, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a launcher to its end."""
    return subprocess.run(
        ["bash", str(SCRIPTS / launcher), *arguments],
        cwd=cwd,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


class StandIn:
    """The stand-in for python in a folder, and what it was called with."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "python-stand-in"
        self.path.write_text(STAND_IN, encoding="utf-8")
        self.path.chmod(0o755)
        self.notes = folder / "notes.txt"
        self.notes.touch()
        self.variables = {"PYTHON": str(self.path), "NOTES": str(self.notes)}

    def calls(self, part: str = "") -> list[str]:
        return [line for line in self.notes.read_text(encoding="utf-8").splitlines() if part in line]
