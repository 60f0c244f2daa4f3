"""The example and the study on a real model without their trainings: what they start, in which order, what they say.

Processes are recorded and not started. Not exercised: the examples themselves (examples/real_model.sh takes an hour).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from verl_ispo.example_runs import steps as shared_steps
from verl_ispo.example_runs.study_measures import RunMeasures
from verl_ispo.launch.training_options import TrainingOptions
from verl_ispo.real_model import example, study, timed_step, training_run
from verl_ispo.real_model.timed_step import StepTiming, in_words, timed_once


class Recorded:
    """The trainings and processes that an example starts; each training ends at once with a step of 30 s."""

    def __init__(self) -> None:
        self.trained: list[TrainingOptions] = []
        self.calls: list[str] = []

    def train(self, options: TrainingOptions) -> int:
        self.trained.append(options)
        self.calls.append(f"train {options.method} {options.out} {options.steps}")
        options.out.mkdir(parents=True, exist_ok=True)
        line = {"step": 1, "data": {"timing_s/step": 30.0, "ispo/trace_dropped_rate": 0.1}}
        (options.out / "metrics.1.jsonl").write_text(json.dumps(line) + "\n")
        return 0

    def call(self, command: list[str], output: object = None) -> int:
        self.calls.append(" ".join(command[command.index("-m") + 1 :]))
        if "eval" in command:
            out = Path(command[command.index("--out") + 1])
            out.mkdir(parents=True, exist_ok=True)
            (out / "summary.json").touch()
        return 0


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorded:
    noted = Recorded()
    monkeypatch.chdir(tmp_path)
    for name in ("VERL_PLATFORM", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "TQ_NUM_THREADS", "RAY_worker_niceness"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(training_run, "train", noted.train)
    monkeypatch.setattr(shared_steps, "call", noted.call)
    measures = RunMeasures((), (), {"trace dropped": 0.1, "answer missing": 0.2}, 0.3, 0.4)
    monkeypatch.setattr(example, "read_measures", lambda *_: measures)
    monkeypatch.setattr(example, "measure_lines", lambda runs: ["", "", *runs])
    monkeypatch.setattr(example, "accuracy_lines", lambda table: [f"averages of {table}"])
    for folder in ("model", "out/data", "out/start-sft5"):
        Path(folder).mkdir(parents=True)
    for name in ("train", "heldout"):
        Path(f"out/data/{name}.parquet").touch()
    return noted


GIVEN = ("--out", "out", "--model", "model", "--sft-steps", "5", "--steps", "3", "--methods", "grpo", "ispo")


def test_the_example_does_its_steps_in_order(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main([*GIVEN, "--", "a.b=1"]) == 0
    runs = "out/seed1-steps3"
    begins = [
        "verl_ispo.real_model.make_data --out out/data",
        "verl_ispo.real_model.fine_tuning --model model --lessons out/data/lessons.jsonl --out out/start-sft5",
        f"verl_ispo.cli probe out/start-sft5 {Path.cwd()}/out/data/train.parquet --rollouts 8 --max-new-tokens 64",
        "verl_ispo.cli eval --model out/start-sft5 --method Base --base-model model --out out/results/Base",
        "train ispo out/timed_step-8x8x64 1",
        f"train grpo {runs}/grpo 3",
        f"verl_ispo.cli eval --model {runs}/grpo/checkpoints --method grpo --training-seed 1 --base-model model",
        f"train ispo {runs}/ispo 3",
        f"verl_ispo.cli eval --model {runs}/ispo/checkpoints",
        f"verl_ispo.cli table out/results/Base {runs}/grpo/result {runs}/ispo/result --out {runs}/table",
        f"verl_ispo.cli report {runs}/grpo {runs}/ispo --table {runs}/table/scores.csv --out {runs}/report",
    ]
    assert len(recorded.calls) == len(begins)
    for call, begin in zip(recorded.calls, begins, strict=True):
        assert call.startswith(begin)
    assert all(options.arguments[-1] == "a.b=1" for options in recorded.trained)
    said = capsys.readouterr().out
    assert "a step takes 30 s here" in said
    assert "2 method(s) of 3 steps and their evaluations will take about 3 min" in said
    assert said.index("will take") < said.index("6 training and evaluation")
    assert f"averages of {runs}/table" in said


def test_a_second_start_times_and_trains_nothing_again(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(GIVEN)
    first = len(recorded.trained)
    assert example.main(GIVEN) == 0
    assert len(recorded.trained) == first
    assert "will take" not in capsys.readouterr().out.rpartition("6 training and evaluation")[0].rpartition("1 the")[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model", "other"], r"MODEL=.*/model, now .*/other"),
        (["--model", "organisation/other"], "MODEL=.*/model, now organisation/other"),
        (["--sft-steps", "0"], "SFT_STEPS=5, now 0"),
        (["--data", "elsewhere"], "DATA=, now .*/elsewhere"),
    ],
)
def test_a_folder_that_was_begun_from_another_start_is_refused(
    recorded: Recorded, change: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there is used again, so another model would be trained from the first one's lessons, in silence."""
    for folder in ("other", "elsewhere"):
        Path(folder).mkdir()
    assert example.main(GIVEN) == 0
    before = len(recorded.calls)
    assert example.main([*GIVEN, *change]) == 2
    assert re.search(f"out has the start of {said}.*Set another OUT", capsys.readouterr().err)
    assert len(recorded.calls) == before
    assert example.main(GIVEN) == 0


def test_without_supervised_steps_the_model_is_the_start(recorded: Recorded) -> None:
    assert example.main([*GIVEN, "--sft-steps", "0"]) == 0
    assert not any("fine_tuning" in call for call in recorded.calls)
    assert {options.model for options in recorded.trained} == {"model"}


def test_on_a_gpu_one_engine_takes_one(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    engine = ("--rollout", "vllm", "--vllm-args", "enforce_eager=true")
    assert example.main([*GIVEN, *engine]) == 0
    assert {(run.rollout, run.gpus_per_node, run.rollout_tp) for run in recorded.trained} == {("vllm", 4, 1)}
    evaluated = [call for call in recorded.calls if "cli eval" in call]
    assert len(evaluated) == 3
    assert all("--vllm-args enforce_eager=true --n 4" in call for call in evaluated)


def test_a_study_is_its_starts_evaluation_and_every_cell(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def some_at_a_time(commands: list[list[str]], jobs: int) -> int:
        asked.extend(" ".join(command[1:]) for command in commands)
        assert jobs == 3
        for folder in ("out/results/Base", "out/steps3-8x8/seed2/ispo/result"):
            Path(folder).mkdir(parents=True)
            (Path(folder) / "summary.json").touch()
        return 1

    monkeypatch.setattr(study, "run_some_at_a_time", some_at_a_time)
    monkeypatch.setattr(study, "read_all", lambda *_: {"grpo": {}, "ispo": {2: RunMeasures((), (), {}, 0.1, 0.2)}})
    monkeypatch.setattr(study, "describe", lambda runs, seeds, tail: f"{list(runs)} {seeds} {tail}")
    assert study.main([*GIVEN, "--seeds", "2", "--jobs", "3", "--", "a.b=1"]) == 1
    assert [command.split()[1:3] for command in asked] == [
        ["verl_ispo.cli", "eval"],
        ["verl_ispo.real_model.training_run", "--method"],
        ["verl_ispo.real_model.training_run", "--method"],
    ]
    assert "--method ispo --seed 2 --run out/steps3-8x8/seed2/ispo --steps 3 --start out/start-sft5" in asked[2]
    assert asked[2].endswith("-- a.b=1")
    assert Path("out/steps3-8x8/study.md").read_text() == "['grpo', 'ispo'] [2] 1"
    assert "some runs failed" in capsys.readouterr().err


def test_a_study_on_vllm_runs_one_after_another(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main([*GIVEN, "--jobs", "2", "--rollout", "vllm"]) == 2
    assert "JOBS=2 (--jobs) with ROLLOUT=vllm (--rollout)" in capsys.readouterr().err
    assert not recorded.calls


def test_a_study_says_what_is_missing_and_compares_the_rest() -> None:
    complete = RunMeasures((), (), {"trace dropped": 0.1, "answer missing": 0.2}, 0.3, 0.4)
    text = study.describe({"grpo": {}, "ispo": {1: complete}}, [1], 6)
    assert "left out: grpo seed 1" in text
    assert "those of the last 6 steps" in text
    assert "No comparison: grpo is not complete." in text


def test_one_command_trains_and_evaluates_one_run(recorded: Recorded) -> None:
    given = [
        "--method",
        "sign",
        "--seed",
        "4",
        "--start",
        "model",
        "--data",
        "out/data",
        "--run",
        "mine",
        "--steps",
        "2",
    ]
    assert training_run.main(given) == 0
    assert recorded.calls[0] == "train sign mine 2"
    assert recorded.calls[1].startswith("verl_ispo.cli eval --model mine/checkpoints --method sign --training-seed 4")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "about 1 min"), (1749, "about 29 min"), (3600, "about 1 h 00 min"), (4839, "about 1 h 21 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_total_is_the_start_and_the_steps() -> None:
    assert StepTiming(step_s=2.0, start_s=30.0).total_s(10) == 50.0


def test_the_first_time_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 7.0, 100.0, 101.0])
    monkeypatch.setattr(timed_step.time, "monotonic", lambda: next(clock))
    done: list[int] = []
    assert [timed_once(tmp_path / "time.json", lambda: done.append(1)) for _ in range(2)] == [7.0, 7.0]
    assert len(done) == 2
