"""scripts/gpu/run_all.sh without a GPU: the order of its parts, the effect of a failure, and its summary.

The programs that it starts only note their calls. Not exercised: its parts on a GPU; the step benchmark's
commands (tests/launch/test_bench_step.py) and its run on the CPU (tests/training/test_gpu_scripts.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.scripts.launchers import NotingPrograms, launch


def test_a_failed_part_is_in_the_summary_and_the_others_run(programs: NotingPrograms, tmp_path: Path) -> None:
    run = launch("gpu/run_all.sh", "a.b=c", cwd=tmp_path, OUT="out", FAIL="*same_as_cpu*", **programs.variables)
    assert run.returncode == 1
    summary = (tmp_path / "out/summary.txt").read_text().splitlines()
    assert [line.split(" after ")[0] for line in summary] == [
        "reward: FAILED",
        "attention: passed",
        "metrics: passed",
        "cost: passed",
    ]
    assert "\n".join(summary) in run.stdout
    assert "made to fail" in (tmp_path / "out/reward.log").read_text()
    (checked,) = programs.calls("same_metrics")
    assert checked.endswith(f"same_metrics.py {tmp_path}/out/metrics/256/ispo-separate")
    metrics, *cost = programs.calls("bench_step.py")
    random = f"--random-out {tmp_path}/out/random"
    small = "--lengths 256 --variants ispo:separate"
    steps = "--steps 2 --warmup 0 --prompts 4"
    compared = "actor_rollout_ref.rollout.calculate_log_probs=true"
    assert metrics.endswith(f"bench_step.py --out {tmp_path}/out/metrics {steps} {random} {small} -- {compared} a.b=c")
    expected = [(length, variant) for length in (1024, 4096) for variant in ("grpo", "ispo:separate", "ispo:merged")]
    for call, (length, variant) in zip(cost, expected, strict=True):
        which = f"--lengths {length} --variants {variant}"
        assert call.endswith(f"bench_step.py --out {tmp_path}/out/cost {random} {which} -- a.b=c")
    tables = programs.calls("step_timing_table")
    assert len(tables) == len(cost), "written again after each training"
    folder = f"{tmp_path}/out/cost"
    merged, last = f"ispo:merged={folder}/1024/ispo-merged", f"--skip 2 --csv {folder}/step-1024.csv"
    assert f"grpo={folder}/1024/grpo ispo:separate={folder}/1024/ispo-separate {merged} {last}" in tables[2]
    assert "pip freeze" in (tmp_path / "notes.txt").read_text()
    assert "verl_ispo " in (tmp_path / "out/versions.txt").read_text()


def test_a_table_is_named_at_the_end(programs: NotingPrograms, tmp_path: Path) -> None:
    (tmp_path / "out/cost").mkdir(parents=True)
    (tmp_path / "out/cost/step-64.md").touch()
    run = launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", PARTS="cost", **programs.variables)
    assert run.returncode == 0, run.stderr
    assert f"table: {tmp_path}/out/cost/step-64.md" in run.stdout.splitlines()
