"""``verl-ispo reproduce-table`` and ``evaluate-run``: the plan, continuing after failures, the evaluations.

The training is a small program that notes its calls; evaluations are recorded and not started. Not exercised:
trainings and evaluations themselves (tests/training, tests/evaluation).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launch.fake_training import FakeTraining
from verl_ispo.launch import reproduce_table, start_training

Command = Callable[..., tuple[int, str, str]]
BENCHMARKS = ("aime24", "aime25", "amc23", "math500", "olympiadbench")


class Processes:
    """Commands that the table would run in separate processes; an evaluation leaves its summary."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.environments: list[dict[str, str]] = []

    def call(self, command: list[str], environment: dict[str, str] | None = None) -> int:
        self.calls.append(command)
        self.environments.append(environment or {})
        if "eval" in command:
            out = Path(command[command.index("--out") + 1])
            out.mkdir(parents=True, exist_ok=True)
            (out / "summary.json").write_text("{}")
        return 1 if command[0] == "launcher" else 0

    def of(self, word: str) -> list[list[str]]:
        return [call for call in self.calls if word in call]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    noted = Processes()
    monkeypatch.setattr(reproduce_table, "call", noted.call)
    return noted


@pytest.fixture
def table(
    command: Command, data: Path, fake: FakeTraining, processes: Processes
) -> Callable[..., tuple[int, str, str]]:
    def run(*more: str, methods: tuple[str, ...] = ("grpo", "ispo")) -> tuple[int, str, str]:
        chosen = ("--models", "qwen2_5_7b", "--methods", *methods, "--seeds", "1", "--steps", "5")
        return command("reproduce-table", "--data", data, *chosen, "--out", "table", *more)

    return run


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def methods_of(fake: FakeTraining) -> list[str]:
    return [call[3] for call in fake.commands()]


def test_the_plan_of_the_papers_table(command: Command, data: Path, fake: FakeTraining, processes: Processes) -> None:
    status, out, err = command("reproduce-table", "--data", data, "--print-only")
    assert status == 0, err
    assert "plan: 72 cells of 1000 steps" in out  # 3 models, 8 methods, 3 seeds
    assert out.count("to do") == 72
    # by hand: 9 runs each of (2 x 18.2 + 26.4 + 5 x 19.0) seconds per step
    hours = 9 * (2 * 18.2 + 26.4 + 5 * 19.0) * 1000 / 3600
    text = " ".join(out.split())
    assert f"estimate: {hours:.0f} hours for the 72 cells" in text
    assert "8 x A100 80 GB" in text
    assert "nothing of it was measured" in text
    assert out.splitlines()[1].split()[:2] == ["qwen2_5_math_1_5b", "grpo"], "the paper's order"
    assert not fake.commands()
    assert not processes.calls
    assert not (data.parent / "runs").exists()


def test_every_cell_is_trained_evaluated_and_put_into_the_table(
    table, fake: FakeTraining, processes: Processes
) -> None:
    status, out, err = table("--seconds-per-step", "36")
    assert status == 0, err
    assert "SECONDS_PER_STEP=36" in out
    assert methods_of(fake) == ["method=grpo", "method=ispo"]
    evaluated = processes.of("eval")
    assert [option(call, "--method") for call in evaluated] == ["Base", "GRPO", "ISPO"]
    assert all(option(call, "--base-model") == "Qwen2.5-7B" for call in evaluated)
    assert "--training-seed" not in evaluated[0]
    assert option(evaluated[1], "--training-seed") == "1"
    (made,) = processes.of("table")
    assert not any("summary.json" in word for word in made)
    assert len([word for word in made if "/results/" in word]) == 3

    status, out, _ = table()
    assert status == 0
    assert "estimate: 0 hours for the 0 cells" in out
    assert len(fake.commands()) == 2, "what is done is not trained again"


def test_a_cell_that_fails_does_not_stop_the_others(table, fake: FakeTraining, processes: Processes) -> None:
    fake.status, fake.fails_if = 3, ("method=grpo",)
    status, _, err = table()
    assert status == 1
    assert "1 cell(s) failed" in err
    assert "qwen2_5_7b grpo 1" in err
    assert len(processes.of("eval")) == 2
    assert processes.of("table"), "the table has what there is"

    fake.status = 0
    assert table()[0] == 0
    assert methods_of(fake) == ["method=grpo", "method=ispo", "method=grpo"]


def test_a_signal_ends_the_whole_table(
    table, fake: FakeTraining, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce_table, "train", lambda _: 143)
    assert table()[0] == 143
    assert len(processes.of("eval")) == 1, "the start, which came before"


def test_a_dry_run_is_a_preflight_of_each_cell_and_starts_nothing(
    table, fake: FakeTraining, processes: Processes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def preflight(options, *_: object) -> int:
        checked.append(options.method)
        return 1 if options.method == "grpo" else 0

    monkeypatch.setattr(start_training, "preflight", preflight)
    status, _, err = table("--dry-run", methods=("grpo", "ispo", "dapo"))
    assert status == 1
    assert "qwen2_5_7b grpo 1" in err
    assert checked == ["grpo", "ispo", "dapo"]
    assert not fake.commands()
    assert not processes.calls
    assert not (data.parent / "table").exists()


def test_another_launcher_trains_the_cells(table, processes: Processes, data: Path) -> None:
    status, _, _ = table("--launcher", "launcher --waiting", "--engine", "megatron", "--", "x=1", methods=("ispo",))
    assert status == 1
    (index,) = [index for index, call in enumerate(processes.calls) if call[0] == "launcher"]
    assert processes.calls[index] == ["launcher", "--waiting", "x=1"]
    given = processes.environments[index]
    out = data.parent / "table/runs/qwen2_5_7b/ispo-seed1"
    wanted = {"MODEL": "qwen2_5_7b", "METHOD": "ispo", "SEED": "1", "STEPS": "5", "OUT": str(out), "ENGINE": "megatron"}
    assert wanted.items() <= given.items()
    assert "PATH" in given


def evaluated(command: Command, *arguments: object) -> list[str]:
    status, out, err = command("evaluate-run", "--print-only", *arguments)
    assert status == 0, err
    return out.split()


def test_a_run_is_evaluated_under_its_own_names_and_length(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    noted = ["MODEL=qwen2_5_math_7b", "METHOD=dr_grpo", "SEED=2", "RESPONSE_LENGTH=512", "STEPS=5"]
    (run / "run.txt").write_text("\n".join(noted) + "\n")
    call = " ".join(evaluated(command, "--run", "run", "--benchmarks", "b", "--n", "4", "--", "--top-p", "0.9"))
    benchmarks = " ".join(f"b/{name}.parquet" for name in BENCHMARKS)
    names = "--model run/checkpoints --base-model Qwen2.5-Math-7B --method Dr.GRPO --training-seed 2"
    assert f"{names} --benchmarks {benchmarks} --out run/result --n 4 " in call
    assert "--max-new-tokens 512 " in call
    assert call.endswith("--top-p 0.9"), "arguments come last and win"


@pytest.mark.parametrize(("model", "length"), [("Qwen/Qwen2.5-Math-7B", "4096"), ("qwen2_5_7b", "8192")])
def test_a_preset_is_evaluated_with_the_length_it_trains_with(model: str, length: str, command: Command) -> None:
    call = evaluated(command, "--model", model, "--benchmarks", "b")
    assert option(call, "--max-new-tokens") == length
    assert option(call, "--method") == "Base"


def test_the_evaluation_gets_what_the_command_says(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr("verl_ispo.evaluation.run.run", lambda options: given.append(options) or 0)
    assert command("evaluate-run", "--model", "org/name", "--files", "a", "b", "--temperature", "0.3")[0] == 0
    (options,) = given
    assert (options.model, options.base_model, options.method) == ("org/name", "name", "Base")
    assert (options.benchmarks, options.temperature) == ((Path("a"), Path("b")), 0.3)
    assert (options.out, options.max_new_tokens) == (Path("runs/eval/name"), 4096)
