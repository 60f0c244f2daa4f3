"""scripts/gpu/run_all.sh without a GPU: the order of its checks, the effect of failures and time limits, a restart.

The programs that it starts only note their calls. Not exercised: its parts on a GPU; the step benchmark's
commands (tests/launch/test_bench_step.py) and its run on the CPU (tests/training/test_gpu_scripts.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.scripts.launchers import NotingPrograms, launch

TRAININGS = [f"{length} {variant}" for length in (1024, 4096) for variant in ("grpo", "ispo:separate", "ispo:merged")]


def outcomes(folder: Path) -> list[str]:
    """The summary, without times and logs."""
    lines = (folder / "out/summary.txt").read_text().splitlines()
    return [line.split(" after ")[0].split(" within ")[0] for line in lines]


def test_a_failed_check_is_in_the_summary_and_the_others_run(programs: NotingPrograms, tmp_path: Path) -> None:
    run = launch("gpu/run_all.sh", "a.b=c", cwd=tmp_path, OUT="out", FAIL="*same_as_cpu*", **programs.variables)
    assert run.returncode == 1
    first, *others = [name for name in TRAININGS if name != "1024 ispo:separate"]
    passed = ["attention", "1024 ispo:separate", "metrics", first, *others]
    assert outcomes(tmp_path) == ["reward: FAILED", *(f"{name}: passed" for name in passed)]
    assert (tmp_path / "out/summary.txt").read_text() in run.stdout
    assert "made to fail" in (tmp_path / "out/reward.log").read_text()
    (checked,) = programs.calls("same_metrics")
    assert checked.endswith(f"same_metrics.py {tmp_path}/out/cost/1024/ispo-separate")
    where = (
        f"bench_step.py --out {tmp_path}/out/cost --steps 2 --warmup 1 --prompts 8 --random-out {tmp_path}/out/random"
    )
    overrides = "-- actor_rollout_ref.rollout.calculate_log_probs=true a.b=c"
    for call, name in zip(programs.calls("bench_step.py"), ("1024 ispo:separate", first, *others), strict=True):
        length, variant = name.split()
        assert call.endswith(f"{where} --lengths {length} --variants {variant} {overrides}")
    tables = programs.calls("step_timing_table")
    assert len(tables) == len(TRAININGS), "written again after each training"
    folder = f"{tmp_path}/out/cost"
    merged, last = f"ispo:merged={folder}/1024/ispo-merged", f"--skip 1 --csv {folder}/step-1024.csv"
    assert f"grpo={folder}/1024/grpo ispo:separate={folder}/1024/ispo-separate {merged} {last}" in tables[2]
    assert "pip freeze" in (tmp_path / "notes.txt").read_text()
    assert "verl_ispo " in (tmp_path / "out/versions.txt").read_text()


def test_the_same_command_goes_on_with_what_has_not_passed(programs: NotingPrograms, tmp_path: Path) -> None:
    """A machine that is lent for minutes is not to repeat what it has said already."""
    failing = {"FAIL": "*4096 --variants grpo*", **programs.variables}
    assert launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", **failing).returncode == 1
    before = (tmp_path / "out/summary.txt").read_text().splitlines()
    programs.notes.write_text("")
    assert launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", **programs.variables).returncode == 0
    (again,) = programs.calls("bench_step.py")
    assert "--lengths 4096 --variants grpo" in again
    assert not programs.calls("same_as_cpu")
    after = (tmp_path / "out/summary.txt").read_text().splitlines()
    assert after[:-1] == [line for line in before if ": passed" in line]
    assert outcomes(tmp_path)[-1] == "4096 grpo: passed"


def test_what_failed_is_tried_once_per_command(programs: NotingPrograms, tmp_path: Path) -> None:
    """Two parts need ISPO's training; where it cannot start, its time limit is to be spent once."""
    failing = {"FAIL": "*--variants ispo:separate*", "LENGTHS": "1024", **programs.variables}
    assert launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", PARTS="metrics cost", **failing).returncode == 1
    assert outcomes(tmp_path) == ["1024 ispo:separate: FAILED", "1024 grpo: passed", "1024 ispo:merged: passed"]
    assert len(programs.calls("--variants ispo:separate")) == 1


def test_a_training_that_does_not_end_is_ended_at_its_limit(programs: NotingPrograms, tmp_path: Path) -> None:
    hanging = {"HANG": "*--variants ispo:merged*", "LIMIT_S": "1", "LENGTHS": "1024", **programs.variables}
    assert launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", PARTS="cost", **hanging).returncode == 1
    assert outcomes(tmp_path) == [
        "1024 grpo: passed",
        "1024 ispo:separate: passed",
        "1024 ispo:merged: ended at its time limit",
    ]
    assert programs.calls("ended: ")


def test_nothing_is_started_after_the_whole_time(programs: NotingPrograms, tmp_path: Path) -> None:
    """The first result that takes too long must not cost the machine; what was not reached is named."""
    slow = {"HANG": "*same_as_cpu*", "TOTAL_S": "1", "LENGTHS": "1024", **programs.variables}
    run = launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", PARTS="reward cost", **slow)
    assert run.returncode == 1
    assert outcomes(tmp_path) == [
        "reward: ended at its time limit",
        *(f"{name}: not reached" for name in TRAININGS if name.startswith("1024")),
    ]
    assert not programs.calls("bench_step.py")
    assert "the same command goes on with it" in run.stdout


def test_a_table_is_named_at_the_end(programs: NotingPrograms, tmp_path: Path) -> None:
    (tmp_path / "out/cost").mkdir(parents=True)
    (tmp_path / "out/cost/step-64.md").touch()
    run = launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", PARTS="cost", **programs.variables)
    assert run.returncode == 0, run.stderr
    assert f"table: {tmp_path}/out/cost/step-64.md" in run.stdout.splitlines()
