"""What every launcher owes its user: a help that lists each variable, and refusals that list what is known.

Variables are read off the scripts' text, so a new one without a line in the help fails here. Not exercised: shellcheck,
which is not among the tools of this project.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.scripts.launchers import LAUNCHERS, MODELS, SCRIPTS, launch, variables_read


@pytest.mark.parametrize("script", sorted(str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*.s[hb]*")))
def test_bash_can_parse_it(script: str) -> None:
    subprocess.run(["bash", "-n", str(SCRIPTS / script)], check=True)


def test_no_launcher_is_left_out_here() -> None:
    older = {"setup_cpu.sh", "test.sh", "launch_checks.sh"}
    assert {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*.s[hb]*")} - older == set(LAUNCHERS)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_help_lists_every_variable_that_is_read_and_no_other(launcher: str, tmp_path: Path) -> None:
    run = launch(launcher, "--help", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    read = {name for name in variables_read(SCRIPTS / launcher) if not name.startswith("SLURM_")}
    if launcher == "offline_bundle.sh":
        read -= {"WORK"}  # of the install.sh that it writes, which has a help of its own
    assert read, "the pattern finds nothing"
    # a variable's line has a gap between its value and what it is; an example has none before its comment
    lines = [line for line in run.stdout.splitlines() if re.match(r"  [A-Z_]+=.* {3}[^ ]", line.partition("#")[0])]
    described = {name for line in lines for name in re.findall(r"\b([A-Z_]+)=", line)}
    assert read <= described, "not in the help"
    text = (SCRIPTS / launcher).read_text(encoding="utf-8")
    for name in described:
        assert re.search(rf"\$\{{?{name}\b", text), f"{name} is described and not read"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("launcher", "variables", "parts"),
    [
        ("train.sh", {"MODEL": MODELS[0], "ENGINE": "fsdp3"}, ("ENGINE=fsdp3", "fsdp megatron")),
        ("train.sh", {"MODEL": MODELS[0], "ROLLOUT": "hf"}, ("ROLLOUT=hf", "vllm sglang cpu")),
        ("train.sh", {"MODEL": MODELS[0], "METHOD": "ipso"}, ("METHOD=ipso", "dr_grpo", "ispo_guarded")),
        ("train.sh", {"MODEL": "qwen"}, ("MODEL=qwen", *MODELS)),
        ("train.sh", {}, ("MODEL is not set", *MODELS)),
        ("train.sh", {"MODEL": MODELS[0], "STEPS": "0"}, ("STEPS=0", "whole number")),
        ("train.sh", {"MODEL": MODELS[0], "NNODES": "two"}, ("NNODES=two",)),
        ("train.sh", {"MODEL": MODELS[0]}, ("no data", "data_prep")),
        ("train.sh", {"MODEL": MODELS[0], "DATA": "nowhere"}, ("nowhere/dapo_math.parquet does not exist",)),
        ("train.sh", {"MODEL": MODELS[0], "NNODES": "2"}, ("NNODES=2 needs a Ray cluster",)),
        ("train.sh", {"MODEL": MODELS[0], "RAY_ADDRESS": "http://head:8265"}, ("host:port",)),
        ("train.sh", {"MODEL": "a/b", "ROLLOUT": "cpu", "ENGINE": "megatron"}, ("ENGINE=megatron needs GPUs",)),
        ("train.sh", {"MODEL": "a/b", "MODEL_PATH": "c", "TRAIN_FILES": "t", "VAL_FILES": "v", "PRINT_ONLY": "1"},
         ("MODEL_PATH=c goes with a preset",)),
        ("eval.sh", {"MODEL": "qwen"}, ("MODEL=qwen", *MODELS)),
        ("eval.sh", {}, ("set RUN", *MODELS)),
        ("eval.sh", {"MODEL": "a/b", "RUN": "c"}, ("set one of them",)),
        ("eval.sh", {"RUN": "."}, ("no run.txt",)),
        ("eval.sh", {"MODEL": "a/b"}, ("no problems", "data_prep")),
        ("reproduce_table.sh", {"DATA": "d", "METHODS": "grpo nope"}, ("METHOD=nope", "dr_grpo")),
        ("reproduce_table.sh", {"DATA": "d", "MODELS": "nope"}, ("MODEL=nope", *MODELS)),
        ("reproduce_table.sh", {"DATA": "d", "MODEL_PATH": "/w"}, ("MODEL_PATH=/w", "several")),
        ("reproduce_table.sh", {}, ("no data",)),
        ("offline_bundle.sh", {"EXTRA": "tpu"}, ("EXTRA=tpu", "gpu sglang megatron")),
        ("offline_bundle.sh", {"REQUIREMENTS": "nowhere.txt"}, ("nowhere.txt does not exist",)),
        ("ray/start_worker.sh", {"RAY_ADDRESS": "http://head:8265"}, ("host:port",)),
        ("ray/start_head.sh", {"BLOCK": "yes"}, ("BLOCK=yes", "0 1")),
        ("slurm/train.sbatch", {}, ("submit it with sbatch",)),
        ("gpu/bench_step.sh", {"VARIANTS": "grpo ipso"}, ("METHOD=ipso", "ispo_guarded")),
        ("gpu/bench_step.sh", {"VARIANTS": "ispo:both"}, ("ispo:both=both", "separate merged")),
        ("gpu/bench_step.sh", {"LENGTHS": "1024 4k"}, ("LENGTHS=4k", "whole number")),
        ("gpu/bench_step.sh", {"STEPS": "2"}, ("WARMUP=2 leaves no step of STEPS=2", "WARMUP=0")),
        ("gpu/bench_step.sh", {"PROMPTS": "3"}, ("PROMPTS=3 is odd", "PROMPTS=4")),
        ("gpu/bench_step.sh", {"CUDA_VISIBLE_DEVICES": ""}, ("no CUDA GPU", "ROLLOUT=cpu")),
        ("gpu/run_all.sh", {"PARTS": "everything"}, ("PARTS=everything", "reward metrics cost")),
        ("gpu/run_all.sh", {"CUDA_VISIBLE_DEVICES": ""}, ("no CUDA GPU",)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_remedy(
    launcher: str, variables: dict[str, str], parts: tuple[str, ...], tmp_path: Path
) -> None:
    run = launch(launcher, cwd=tmp_path, **variables)
    assert run.returncode == 2, run.stderr
    for part in parts:
        assert part in run.stderr
    assert not list(tmp_path.iterdir())


def test_text_is_quoted_for_hydra_whatever_it_holds(tmp_path: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    texts = ["/plain/path", "/a b/c=d,[e]", "it's", "back\\slash", "ends\\", "both\\'", "{brace}: #"]
    command = f'source {SCRIPTS}/launch_checks.sh; for text; do hydra_quoted "$text"; echo; done; hydra_list "$@"'
    run = subprocess.run(["bash", "-c", command, "bash", *texts], capture_output=True, text=True, check=True)
    parser = OverridesParser.create()
    *single, several = run.stdout.splitlines()
    assert [parser.parse_override(f"key={one}").value() for one in single] == texts
    assert parser.parse_override(f"key={several}").value() == texts
