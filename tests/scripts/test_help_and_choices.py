"""Every launcher has a help that lists each variable, and refusals that list the known values.

Variables are read from the scripts' text, so a new one without a line in the help fails here. Not exercised:
shellcheck, which is not among the tools of this project.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.launchers import LAUNCHERS, ROOT, SCRIPTS, launch, variables_read

SHELL_SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for folder in ("scripts", "examples") for path in (ROOT / folder).rglob("*.s[hb]*")
)


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_bash_can_parse_it(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_no_launcher_is_left_out_here() -> None:
    sourced = {
        "setup_cpu.sh",
        "setup_vllm_cpu.sh",
        "setup_real_model.sh",
        "setup_megatron_cpu.sh",
        "pinned_environment.sh",
        "variables.sh",
        "slurm/nodes.sh",
    }
    sourced |= {"gpu/results.sh", "offline/environment.sh"}
    others = {"scripts/test.sh", *(f"scripts/{name}" for name in sourced)}
    launchers = {str((SCRIPTS / launcher).resolve().relative_to(ROOT)) for launcher in LAUNCHERS}
    assert set(SHELL_SCRIPTS) - others == launchers


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_help_lists_every_variable_that_is_read_and_no_other(launcher: str, tmp_path: Path) -> None:
    run = launch(launcher, "--help", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    read = {name for name in variables_read(SCRIPTS / launcher) if not name.startswith("SLURM_")}
    assert read, "the pattern finds nothing"
    # a variable's line has a gap between its value and what it is; an example has none before its comment
    lines = [line for line in run.stdout.splitlines() if re.match(r"  [A-Z_]+=.* {3}[^ ]", line.partition("#")[0])]
    described = {name for line in lines for name in re.findall(r"\b([A-Z_]+)=", line)}
    if launcher == "reproduce_table.sh":
        read -= {*variables_read(SCRIPTS / "train.sh"), *variables_read(SCRIPTS / "eval.sh")} - described
    read_behind_it = {"train.sh": {"OMP_NUM_THREADS", "TQ_NUM_THREADS"}}.get(launcher, set())
    if launcher.startswith("ray/"):
        read_behind_it = {"VERL_PLATFORM"}
    assert read_behind_it <= described
    described -= read_behind_it
    assert read <= described, "not in the help"
    text = (SCRIPTS / launcher).read_text(encoding="utf-8")
    for name in described:
        assert name in read or re.search(rf"\$\{{?{name}\b", text), f"{name} is described and not read"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("launcher", "variables", "parts"),
    [
        ("train.sh", {"DRY_RUN": "yes"}, ("DRY_RUN=yes", "0 1")),
        ("eval.sh", {"PRINT_ONLY": "2"}, ("PRINT_ONLY=2", "0 1")),
        ("train.sh", {"MODEL": "qwen2_5_7b", "ENGINE": "fsdp3"}, ("ENGINE=fsdp3", "fsdp megatron")),
        ("eval.sh", {}, ("set RUN", "qwen2_5_math_7b")),
        ("reproduce_table.sh", {"DATA": "d", "METHODS": "grpo nope"}, ("METHOD=nope", "dr_grpo")),
        ("offline_bundle.sh", {"EXTRA": "tpu"}, ("EXTRA=tpu", "gpu sglang")),
        ("offline_bundle.sh", {"PART_MB": "big"}, ("PART_MB=big", "whole number")),
        ("offline_bundle.sh", {"REQUIREMENTS": "nowhere.txt"}, ("nowhere.txt does not exist",)),
        ("offline_bundle.sh", {"SLIM": "1"}, ("set EXTRA=gpu",)),
        ("offline_bundle.sh", {"EXTRA": "gpu", "ON_TARGET": "freeze.txt"}, ("needs SLIM=1",)),
        (
            "offline_bundle.sh",
            {"EXTRA": "gpu", "SLIM": "1", "ON_TARGET": "nowhere.txt"},
            ("nowhere.txt does not exist",),
        ),
        ("ray/start_worker.sh", {"RAY_ADDRESS": "http://head:8265"}, ("host:port",)),
        ("ray/start_head.sh", {"BLOCK": "yes"}, ("BLOCK=yes", "0 1")),
        ("slurm/train.sbatch", {}, ("submit it with sbatch",)),
        ("gpu/run_all.sh", {"PARTS": "everything"}, ("PARTS=everything", "reward attention metrics cost")),
        ("gpu/run_all.sh", {"CUDA_VISIBLE_DEVICES": ""}, ("no CUDA GPU",)),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(
    launcher: str, variables: dict[str, str], parts: tuple[str, ...], tmp_path: Path
) -> None:
    """Through the shell; every refusal of the commands behind it is in tests/launch."""
    run = launch(launcher, cwd=tmp_path, **{"PYTHON": sys.executable, **variables})
    assert run.returncode == 2, run.stderr
    for part in parts:
        assert part in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "launcher", ["ray/start_head.sh", "offline_bundle.sh", "offline/install.sh", "../examples/quickstart.sh"]
)
def test_a_script_of_variables_alone_takes_no_arguments(launcher: str, tmp_path: Path) -> None:
    run = launch(launcher, "more", cwd=tmp_path)
    assert run.returncode == 2
    assert "settings are environment variables" in run.stderr
