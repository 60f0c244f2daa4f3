"""scripts/reproduce_table.sh and scripts/eval.sh: the plan, going on after failures, and the evaluations that follow.

The interpreter is a stand-in that notes its calls. Not exercised: trainings and evaluations themselves
(tests/training, tests/evaluation).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.scripts.launchers import StandIn, launch


def table(stand_in: StandIn, data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {"MODELS": "qwen2_5_7b", "METHODS": "grpo ispo", "SEEDS": "1", "STEPS": "5", "OUT": "table"}
    return launch("reproduce_table.sh", cwd=data.parent, DATA=str(data), **{**given, **stand_in.variables, **variables})


def test_the_plan_of_the_papers_table(stand_in: StandIn, data: Path) -> None:
    run = launch("reproduce_table.sh", cwd=data.parent, DATA=str(data), PRINT_ONLY="1", **stand_in.variables)
    assert run.returncode == 0, run.stderr
    assert "plan: 72 cells of 1000 steps" in run.stdout  # 3 models, 8 methods, 3 seeds
    assert run.stdout.count("to do") == 72
    # by hand: 9 runs each of (2 x 18.2 + 26.4 + 5 x 19.0) seconds a step
    hours = 9 * (2 * 18.2 + 26.4 + 5 * 19.0) * 1000 / 3600
    text = " ".join(run.stdout.split())
    assert f"estimate: {hours:.0f} hours for the 72 cells" in text
    assert "8 x A100 80 GB" in text
    assert "nothing of it was measured" in text
    assert not stand_in.calls()
    assert not (data.parent / "runs").exists()


def test_every_cell_is_trained_evaluated_and_put_into_the_table(stand_in: StandIn, data: Path) -> None:
    run = table(stand_in, data, SECONDS_PER_STEP="36")
    assert run.returncode == 0, run.stderr
    assert "SECONDS_PER_STEP=36" in run.stdout
    assert [call.split()[3] for call in stand_in.calls("main_ppo")] == ["method=grpo", "method=ispo"]
    evaluated = stand_in.calls("verl_ispo.cli eval")
    assert [call.split("--method ")[1].split()[0] for call in evaluated] == ["Base", "GRPO", "ISPO"]
    assert all("--base-model Qwen2.5-7B " in call for call in evaluated)
    assert "--training-seed" not in evaluated[0]
    assert "--training-seed 1" in evaluated[1]
    (made,) = stand_in.calls("verl_ispo.cli table")
    assert made.count("summary.json") == 0
    assert len([word for word in made.split() if "/results/" in word]) == 3

    again = table(stand_in, data)
    assert again.returncode == 0
    assert "estimate: 0 hours for the 0 cells" in again.stdout
    assert len(stand_in.calls("main_ppo")) == 2, "what is done is not trained again"


def test_a_cell_that_fails_does_not_stop_the_others(stand_in: StandIn, data: Path) -> None:
    run = table(stand_in, data, FAIL="*main_ppo*method=grpo*")
    assert run.returncode == 1
    assert "1 cell(s) failed" in run.stderr
    assert "qwen2_5_7b grpo 1" in run.stderr
    assert len(stand_in.calls("verl_ispo.cli eval")) == 2
    assert stand_in.calls("verl_ispo.cli table"), "the table has what there is"

    assert table(stand_in, data).returncode == 0
    assert [call.split()[3] for call in stand_in.calls("main_ppo")] == ["method=grpo", "method=ispo", "method=grpo"]


def test_a_dry_run_is_a_preflight_of_each_cell_and_starts_nothing(stand_in: StandIn, data: Path) -> None:
    run = table(stand_in, data, DRY_RUN="1", FAIL="*doctor*method=grpo*", METHODS="grpo ispo dapo")
    assert run.returncode == 1
    assert "qwen2_5_7b grpo 1" in run.stderr
    checked = stand_in.calls("doctor --no-ray --dry-run")
    assert len(checked) == 3
    assert not stand_in.calls("main_ppo")
    assert not stand_in.calls("cli eval")
    assert not (data.parent / "table").exists()


def test_another_launcher_trains_the_cells(stand_in: StandIn, data: Path) -> None:
    script = data.parent / "launcher.sh"
    script.write_text('echo "launched: $1 $MODEL $METHOD $SEED $STEPS $OUT" >>"$NOTES"; exit 1\n')
    run = table(stand_in, data, LAUNCHER=f"bash {script} waiting", METHODS="ispo")
    assert run.returncode == 1
    (launched,) = stand_in.calls("launched: ")
    out = data.parent / "table/runs/qwen2_5_7b/ispo-seed1"
    assert launched == f"launched: waiting qwen2_5_7b ispo 1 5 {out}"


def test_a_run_is_evaluated_under_its_own_names_and_length(stand_in: StandIn, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    noted = ["MODEL=qwen2_5_math_7b", "METHOD=dr_grpo", "SEED=2", "RESPONSE_LENGTH=512", "STEPS=5"]
    (run / "run.txt").write_text("\n".join(noted) + "\n")
    result = launch("eval.sh", "--top-p", "0.9", cwd=tmp_path, RUN="run", BENCHMARKS="b", N="4", **stand_in.variables)
    assert result.returncode == 0, result.stderr
    (call,) = stand_in.calls("cli eval")
    benchmarks = " ".join(f"b/{name}.parquet" for name in ("aime24", "aime25", "amc23", "math500", "olympiadbench"))
    names = "--model run/checkpoints --base-model Qwen2.5-Math-7B --method Dr.GRPO --training-seed 2"
    assert f"{names} --benchmarks {benchmarks} --out run/result --n 4 " in call
    assert "--max-new-tokens 512 " in call
    assert call.endswith("--top-p 0.9"), "arguments come last and win"


@pytest.mark.parametrize(("model", "length"), [("qwen2_5_math_7b", "4096"), ("qwen2_5_7b", "8192")])
def test_a_preset_is_evaluated_with_the_length_it_trains_with(model: str, length: str, tmp_path: Path) -> None:
    run = launch("eval.sh", cwd=tmp_path, MODEL=model, BENCHMARKS="b", PRINT_ONLY="1")
    assert run.returncode == 0, run.stderr
    assert f"--max-new-tokens {length} " in run.stdout
    assert "--method Base " in run.stdout
