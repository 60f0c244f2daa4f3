"""scripts/gpu/run_all.sh without a GPU: the order of its parts, the effect of a failure, and its summary.

The programs that it starts only note their calls. Not exercised: its parts on a GPU (nowhere yet); the step benchmark's
commands (tests/launch/test_bench_step.py) and its run on the CPU (tests/training/test_gpu_scripts.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.scripts.launchers import SCRIPTS, NotingPrograms, launch


def test_a_failed_part_is_in_the_summary_and_the_others_run(programs: NotingPrograms, tmp_path: Path) -> None:
    run = launch("gpu/run_all.sh", "a.b=c", cwd=tmp_path, OUT="out", FAIL="*same_as_cpu*", **programs.variables)
    assert run.returncode == 1
    summary = (tmp_path / "out/summary.txt").read_text().splitlines()
    assert [line.split(" after ")[0] for line in summary] == ["reward: FAILED", "metrics: passed", "cost: passed"]
    assert run.stdout.splitlines()[-3:] == summary
    assert "made to fail" in (tmp_path / "out/reward.log").read_text()
    (checked,) = programs.calls("same_metrics")
    assert checked.endswith(f"same_metrics.py {tmp_path}/out/metrics/256/ispo-separate")
    metrics, cost = programs.calls("bench_step.py")
    random = f"--random-out {tmp_path}/out/random"
    small = "--lengths 256 --variants ispo:separate"
    steps = "--steps 2 --warmup 0 --prompts 4"
    assert metrics.endswith(f"bench_step.py --out {tmp_path}/out/metrics {steps} {random} {small} -- a.b=c")
    assert cost.endswith(f"bench_step.py --out {tmp_path}/out/cost {random} -- a.b=c"), "all variants, all lengths"
    assert "pip freeze" in (tmp_path / "notes.txt").read_text()
    assert "verl_ispo " in (tmp_path / "out/versions.txt").read_text()


def test_a_table_is_named_at_the_end(programs: NotingPrograms, tmp_path: Path) -> None:
    (tmp_path / "out/cost").mkdir(parents=True)
    (tmp_path / "out/cost/step-64.md").touch()
    run = launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", PARTS="cost", **programs.variables)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"table: {tmp_path}/out/cost/step-64.md"


def test_all_that_is_written_of_a_gpu_says_that_none_has_run_it() -> None:
    scripts = [path for path in (SCRIPTS / "gpu").iterdir() if path.suffix in (".py", ".sh")]
    assert len(scripts) == 6
    for script in scripts:
        assert "Not run on a GPU by us yet" in script.read_text(), script
