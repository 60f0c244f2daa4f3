"""Running the shell scripts: where they are, which variables they read, and programs that note how they were called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
LAUNCHERS = (
    *("train.sh", "eval.sh", "reproduce_table.sh", "offline_bundle.sh"),
    *("ray/start_head.sh", "ray/start_worker.sh", "slurm/train.sbatch"),
    *("gpu/bench_step.sh", "gpu/run_all.sh"),
    *("offline/install.sh", "offline/unpack.sh"),
    *("../examples/quickstart.sh", "../examples/tiny_run.sh", "../examples/tiny_study.sh"),
    *("../examples/real_model.sh", "../examples/real_study.sh"),
)

# Writes its name and call to $NOTES. $FAIL is a pattern of calls that fail, $HANG one of calls that do not end.
NOTING = r"""#!/usr/bin/env bash
call="$*"
printf '%s\n' "$call" >>"$NOTES"
if [ -n "${FAIL:-}" ]; then case "$call" in $FAIL) echo "made to fail"; exit 3 ;; esac; fi
if [ -n "${HANG:-}" ]; then
    case "$call" in $HANG)
        trap 'printf "ended: %s\n" "$call" >>"$NOTES"; exit 143' TERM
        for _ in $(seq 600); do sleep 0.1; done ;;
    esac
fi
"""


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without what the launchers read, with its interpreter, and then `variables`."""
    read = {name for launcher in LAUNCHERS for name in variables_read(SCRIPTS / launcher)} | {"VERL_PLATFORM"}
    kept = {name: value for name, value in os.environ.items() if name not in read and not name.startswith("SLURM_")}
    return {**kept, "PYTHON": sys.executable, **variables}


def variables_read(script: Path) -> set[str]:
    """Environment variables that a script reads: with a default, or as an option."""
    text = script.read_text(encoding="utf-8")
    return set(re.findall(r"\$\{([A-Z][A-Z0-9_]*):[-?+]", text)) | set(variables_mapped(script))


def variables_mapped(script: Path) -> dict[str, str]:
    """Variables that a script turns into options, by how: values, words, flags."""
    lines = re.findall(r"^(values|words|flags) ((?:[A-Z][A-Z0-9_]* ?)+)$", script.read_text("utf-8"), re.MULTILINE)
    return {name: how for how, names in lines for name in names.split()}


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


class NotingPrograms:
    """Programs in a folder that note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "programs"
        self.folder.mkdir()
        self.notes = folder / "notes.txt"
        self.notes.touch()
        self.variables = {"PYTHON": str(self.add("python", NOTING)), "NOTES": str(self.notes)}

    def add(self, name: str, text: str) -> Path:
        """A program of this text; its path."""
        program = self.folder / name
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
        return program

    def calls(self, part: str = "") -> list[str]:
        return [line for line in self.notes.read_text(encoding="utf-8").splitlines() if part in line]
