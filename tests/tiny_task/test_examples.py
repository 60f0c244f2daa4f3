"""The tiny examples without their trainings: what they call the launcher with, in which order, and what they print.

Processes are recorded and not started. Not exercised: the examples themselves (examples/quickstart.sh takes minutes).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from verl_ispo.cpu.forked_python import SOCKET_VARIABLE
from verl_ispo.example_runs import several
from verl_ispo.example_runs import steps as shared_steps
from verl_ispo.example_runs.accuracy_lines import accuracy_lines
from verl_ispo.example_runs.steps import StepFailedError
from verl_ispo.launch.training_options import TrainingOptions
from verl_ispo.tiny_task import example_steps, quickstart, study_runs, tiny_run

SCORES = """\
base_model,method,benchmark,metric,status,score_percent,interval_low_percent,interval_high_percent,problems
tiny,Base,level1,pass@1_greedy,run,82.0000,70.0000,90.0000,50
tiny,Base,Average,pass@1_greedy,run,30.3333,26.0000,34.6667,300
tiny,grpo,Average,pass@1_greedy,run,52.2500,,,300
tiny,ispo,Average,pass@1_greedy,not run,,,,
tiny,Base,Average,avg@4,run,35.9167,33.2000,38.6667,300
"""
COMPARISONS = """\
base_model,method,baseline,benchmark,metric,difference_points,interval_low_points,interval_high_points,p_holm
tiny,Base,grpo,level1,pass@1_greedy,-18.0000,-30.0000,-8.0000,0.08
tiny,Base,grpo,Average,pass@1_greedy,-35.3333,-40.6667,0.0400,0.0068
tiny,ispo,grpo,Average,avg@4,1.2500,-0.5000,3.0000,0.00001
"""


class Steps:
    """Records the trainings and processes that an example starts."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.trained: list[TrainingOptions] = []
        self.calls: list[str] = []

    def train(self, options: TrainingOptions) -> int:
        self.trained.append(options)
        self.calls.append(f"train {options.method}")
        return 143 if self.fails == f"train {options.method}" else 0

    def call(self, command: list[str], output: object = None) -> int:
        self.calls.append(" ".join(command[command.index("-m") + 1 :]))
        return 3 if self.fails and self.fails in self.calls[-1] else 0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Steps:
    noted = Steps()
    monkeypatch.chdir(tmp_path)
    for name in example_steps.ENVIRONMENT:
        monkeypatch.setenv(name, "of the user")
    monkeypatch.setattr(example_steps, "train", noted.train)
    monkeypatch.setattr(shared_steps, "call", noted.call)
    monkeypatch.setenv(SOCKET_VARIABLE, "one that is not asked")
    Path("base").mkdir()
    return noted


RUN = ("--method", "ispo", "--seed", "2", "--base", "base", "--data", "data", "--run", "mine")


def test_a_run_is_trained_as_on_a_cluster_and_evaluated(steps: Steps) -> None:
    assert tiny_run.main([*RUN, "--", "trainer.test_freq=-1"]) == 0
    (options,) = steps.trained
    assert (options.method, options.seed, options.steps, options.rollout, options.screen) == (
        *("ispo", 2, 25),
        *("cpu", "progress"),
    )
    assert (options.save_freq, options.test_freq, options.out) == (10, 10, Path("mine"))
    assert options.reward == "pkg://verl_ispo.tiny_task.reward"
    assert "actor_rollout_ref.actor.optim.lr=1e-4" in options.arguments
    assert options.arguments[-1] == "trainer.test_freq=-1", "arguments win"
    _, evaluated = steps.calls
    assert evaluated == (
        "verl_ispo.cli eval --model mine/checkpoints --method ispo --training-seed 2 --base-model tiny --out mine/"
        "result --benchmarks data/heldout.parquet --reward-function pkg://verl_ispo.tiny_task.reward --n 4 "
        "--temperature 1.0 --max-new-tokens 96"
    )
    assert os.environ["VERL_PLATFORM"] == "cpu"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_stopped_training_is_not_evaluated_and_its_status_is_passed_on(steps: Steps) -> None:
    steps.fails = "train ispo"
    assert tiny_run.main(RUN) == 143
    assert len(steps.calls) == 1


def test_a_stopped_evaluation_shows_the_end_of_its_log(
    steps: Steps, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(command: list[str], output: BinaryIO) -> int:
        output.write(b"the reason\n")
        return 2

    monkeypatch.setattr(shared_steps, "call", call)
    assert tiny_run.main(RUN) == 2
    assert "the last lines of mine/eval.log:\nthe reason" in capsys.readouterr().err


def test_the_quickstart_does_its_steps_in_order(
    steps: Steps, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "accuracy_lines", lambda table: [f"averages of {table}"])
    Path("out/base").mkdir(parents=True)
    assert quickstart.main(["--out", "out", "--steps", "3", "--methods", "grpo", "ispo", "--levels", "1-4"]) == 0
    runs = "out/levels1-4-seed1-steps3"
    results = " ".join(f"{runs}/results/{name}" for name in ("Base", "grpo", "ispo"))
    begins = [
        "verl_ispo.tiny_task.warm_start --out out/base",
        "verl_ispo.tiny_task.make_data --out out/data-levels1-4 --levels 1-4",
        "verl_ispo.cli eval --model out/base --method Base --base-model tiny",
        "train grpo",
        f"verl_ispo.cli eval --model {runs}/grpo/checkpoints",
        "train ispo",
        f"verl_ispo.cli eval --model {runs}/ispo/checkpoints",
        f"verl_ispo.tiny_task.compare_runs --runs {runs}/grpo {runs}/ispo --out {runs}",
        f"verl_ispo.cli table {results} --out {runs}/table --baseline grpo",
        f"verl_ispo.cli report {runs}/grpo {runs}/ispo --table {runs}/table/scores.csv --out {runs}/report",
    ]
    assert len(steps.calls) == len(begins)
    for call, begin in zip(steps.calls, begins, strict=True):
        assert call.startswith(begin)
    out = capsys.readouterr().out
    assert f"averages of {runs}/table" in out
    assert "5/5 what happened" in out
    assert out.splitlines()[-1].startswith("Took ")


def test_the_quickstart_ends_where_a_step_does(steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    steps.fails = "make_data"
    assert quickstart.main(["--out", "out"]) == 3
    assert "verl_ispo.tiny_task.make_data ended with status 3" in capsys.readouterr().err
    assert len(steps.calls) == 2
    assert quickstart.main(["--methods", "ipso"]) == 2
    assert "METHODS=ipso (--methods) is not known; did you mean ispo?" in capsys.readouterr().err


def test_averages_and_comparisons_as_lines(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(SCORES)
    (tmp_path / "comparisons.csv").write_text(COMPARISONS)
    assert accuracy_lines(tmp_path) == [
        "",
        "Held-out accuracy in %, mean over levels: pass@1, greedy",
        "  Base           30.3 [26.0, 34.7] n=300",
        "  grpo           52.3 [no interval] n=300",
        "  ispo           not run",
        "",
        "Held-out accuracy in %, mean over levels: avg@4 (mean accuracy of 4 samples)",
        "  Base           35.9 [33.2, 38.7] n=300",
        "",
        "Compared with grpo (difference in points, 95 % interval, p-value after Holm's correction for all comparisons)",
        "  Base           pass@1_greedy    -35.3 [-40.7, 0.0]     p = 0.007",
        "  ispo           avg@4             +1.3 [-0.5, +3.0]     p = <0.001",
    ]


def python(code: str) -> list[str]:
    return [sys.executable, "-IS", "-c", code]


def test_a_study_runs_so_many_at_a_time_and_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    mark = "import os, time; open({name!r}, 'w').close(); time.sleep(0.2); "
    commands = [
        python(mark.format(name=str(tmp_path / str(number))) + f"os._exit({number % 2})") for number in range(4)
    ]
    assert several.run_some_at_a_time(commands, 2) == 2
    assert len(list(tmp_path.iterdir())) == 4


def test_a_signal_ends_the_studys_runs(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = python(f"import time; open({str(started)!r}, 'w').close(); time.sleep(60)")

    def ask() -> None:
        while not started.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    begin = time.monotonic()
    with pytest.raises(StepFailedError, match="the same command resumes from the checkpoints") as end:
        several.run_some_at_a_time([command, command, command], 1)
    asking.join()
    assert end.value.status == 143
    assert time.monotonic() - begin < 30


def test_a_study_puts_together_what_has_ended(
    steps: Steps, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def some_at_a_time(commands: list[list[str]], jobs: int) -> int:
        asked.extend(commands)
        assert jobs == 3
        for method in ("ispo", "grpo"):
            run = Path(f"out/levels1-6-steps4/seed2/{method}")
            (run / "result").mkdir(parents=True)
            (run / "result/summary.json").touch()
        (run / "done").touch()
        return 2

    monkeypatch.setattr(study_runs, "run_some_at_a_time", some_at_a_time)
    given = ["--out", "out", "--steps", "4", "--seeds", "2", "5", "--methods", "ispo", "grpo", "--jobs", "3"]
    assert study_runs.main(given) == 1, "some failed"
    said = capsys.readouterr()
    assert "the same command tries them again" in said.err
    first = "-m verl_ispo.tiny_task.tiny_run --method ispo --seed 2 --run out/levels1-6-steps4/seed2/ispo --steps 4"
    overrides = "-- trainer.test_freq=-1 trainer.val_before_train=false"
    assert len(asked) == 4
    assert " ".join(asked[0][1:]) == f"{first} --base out/base --data out/data-levels1-6 {overrides}"
    runs = "out/levels1-6-steps4"
    assert steps.calls[2].startswith(
        f"verl_ispo.cli table {runs}/seed2/ispo/result {runs}/seed2/grpo/result --out {runs}/table --baseline grpo"
    )
    assert steps.calls[3].startswith(f"verl_ispo.cli report {runs}/seed2/grpo --table")
    assert steps.calls[4] == (
        f"verl_ispo.tiny_task.study --runs {runs} --methods ispo grpo --seeds 2 5 --out {runs}/study.md"
    )
