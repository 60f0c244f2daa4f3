"""The steps that every example has: a module in a process of its own, evaluation, table, report.

Each runs in its own process, so that its memory is freed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.cpu.fork_server import python_command
from verl_ispo.launch.stop_reason import last_lines
from verl_ispo.launch.training_process import call
from verl_ispo.user_error import UserError

TABLE_METRICS = ("pass@1_greedy", "avg@4")
SAMPLES = 4
"""Samples per held-out problem beside the greedy one, as in `TABLE_METRICS`."""


class StepFailedError(UserError):
    """A step of an example failed and has printed why. The example ends with its exit status.

    Attributes:
        status (`int`): exit status.
    """

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Evaluation:
    """What a model is evaluated on.

    Attributes:
        base_model (`str`): its name in the table.
        problems (`tuple[Path, ...]`): files of held-out problems.
        max_new_tokens (`int`): longest response.
        grader (`str`, *optional*): ``pkg://a.module`` or a file; the project's grader where it is not given.
        vllm_args (`tuple[str, ...]`, *optional*): as ``verl-ispo eval --vllm-args`` takes them.
    """

    base_model: str
    problems: tuple[Path, ...]
    max_new_tokens: int
    grader: str | None = None
    vllm_args: tuple[str, ...] = ()


def run_module(module: str, *arguments: object, quiet: bool = False) -> None:
    """``python -m module arguments``.

    Args:
        module (`str`): dotted name.
        arguments: options, as text.
        quiet (`bool`, *optional*, defaults to `False`): show only errors.

    Raises:
        StepFailedError: it did not end with status 0.
    """
    command = [*python_command(os.environ), "-m", module, *map(str, arguments)]
    status = call(command, output=subprocess.DEVNULL if quiet else None)
    if status:
        raise StepFailedError(f"{module} ended with status {status}, see above", status)


def evaluation_command(
    model: str | Path, method: str, seed: int | None, evaluation: Evaluation, result: Path
) -> list[str]:
    """``verl-ispo eval`` of the held-out problems, greedy and `SAMPLES` samples each, without the interpreter.

    Args:
        model (`str` or `Path`): Hugging Face folder or hub id, or checkpoints of verl.
        method (`str`): name in the table.
        seed (`int`, *optional*): of the training; `None` for the start.
        evaluation (`Evaluation`): on what.
        result (`Path`): folder of the evaluation.
    """
    command = ["-m", "verl_ispo.cli", "eval", "--model", str(model), "--method", method]
    command += [] if seed is None else ["--training-seed", str(seed)]
    command += ["--base-model", evaluation.base_model, "--out", str(result)]
    command += ["--benchmarks", *map(str, evaluation.problems)]
    command += [] if evaluation.grader is None else ["--reward-function", evaluation.grader]
    command += ["--vllm-args", *evaluation.vllm_args] if evaluation.vllm_args else []
    return [*command, "--n", str(SAMPLES), "--temperature", "1.0", "--max-new-tokens", str(evaluation.max_new_tokens)]


def evaluate(model: str | Path, method: str, seed: int | None, evaluation: Evaluation, result: Path, log: Path) -> None:
    """Run `evaluation_command`, all that it prints into a file.

    Raises:
        StepFailedError: with the last lines of the log.
    """
    command = [*python_command(os.environ), *evaluation_command(model, method, seed, evaluation, result)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        status = call(command, output=output)
    if status:
        raise StepFailedError(f"{method}: the evaluation stopped; the last lines of {log}:\n{last_lines(log)}", status)


def make_table(results: Sequence[Path], out: Path, baseline: str) -> None:
    """The evaluations in one table."""
    options = ("--out", out, "--baseline", baseline, "--metrics", *TABLE_METRICS)
    run_module("verl_ispo.cli", "table", *results, *options, quiet=True)


def make_report(runs: Sequence[Path], scores: Path, out: Path) -> None:
    """The runs and their scores in one page."""
    run_module("verl_ispo.cli", "report", *runs, "--table", scores, "--out", out, quiet=True)


def chosen_baseline(methods: Sequence[str], otherwise: str) -> str:
    """GRPO where it was run."""
    return "grpo" if "grpo" in methods else otherwise
