"""``verl-ispo reproduce-table``: models x methods x seeds, each trained and evaluated, then one table.

Cells run one after the other. Finished cells are not repeated, a cell that fails does not stop the others, and each run
has a lock, so that several of these commands may share one folder.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from verl_ispo.launch.evaluate_run import EvaluationRunOptions, eval_command
from verl_ispo.launch.model_choice import choose_model, hub_names
from verl_ispo.launch.option_checks import check_choice, check_from_one, given
from verl_ispo.launch.start_training import train
from verl_ispo.launch.training_options import TrainingOptions, as_variables
from verl_ispo.launch.training_process import call
from verl_ispo.method_presets import method_names, paper_methods
from verl_ispo.runs.spent import Budget, latest_spent
from verl_ispo.user_error import UserError

SECONDS_PER_STEP = {"grpo": 18.2, "dr_grpo": 18.2, "dapo": 26.4}
"""The paper's table of costs, on 8 x A100 80 GB."""
OTHER_SECONDS_PER_STEP = 19.0
"""The paper's for ISPO."""
RATES = (
    "the ISPO paper's seconds per step on 8 x A100 80 GB (GRPO 18.2, DAPO 26.4, ISPO 19.0, taken for all others and "
    "for every model); nothing of it was measured with this code, and other GPUs, models and lengths differ"
)
SIGNAL_STATUSES = (129, 130, 143)
"""Exit statuses of a process that was ended by SIGHUP, SIGINT or SIGTERM."""


@dataclass(frozen=True)
class TableRunOptions:
    """The whole table; ``verl-ispo reproduce-table --help`` says what each option is.

    Args:
        training (`TrainingOptions`): what all cells share; model, method, seed and folder are the cell's.
        evaluation (`EvaluationRunOptions`): what all evaluations share; run or model and folder are the cell's.
        models, methods (`tuple[str, ...]`, *optional*): the paper's.
        seeds (`tuple[int, ...]`, *optional*, defaults to `(1, 2, 3)`): of data order and rollouts.
        out (`Path`, *optional*, defaults to `runs/table`): folder of all runs, results and the table.
        launcher (`str`, *optional*): command that trains a cell from the variables of scripts/train.sh.
        seconds_per_step (`float`, *optional*): for the estimate; the paper's.

    Raises:
        UserError: if an option or a combination of options is invalid.
    """

    training: TrainingOptions
    evaluation: EvaluationRunOptions
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(paper_methods())
    seeds: tuple[int, ...] = (1, 2, 3)
    out: Path = Path("runs/table")
    launcher: str = ""
    seconds_per_step: float | None = None


@dataclass(frozen=True)
class Cell:
    """One run of the table."""

    model: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model} {self.method} {self.seed}"


def table_cells(models: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """All runs; all methods of one seed come before the next seed.

    Raises:
        UserError: an unknown model or method, or an invalid seed.
    """
    for model in models:
        choose_model(model)
    for method in methods:
        check_choice("METHOD", method, method_names())
    for seed in seeds:
        check_from_one("SEEDS", seed)
    return [Cell(model, method, seed) for model, seed, method in product(models, seeds, methods)]


def check_weights(models: Sequence[str], model_path: str) -> None:
    """Refuse one model's weights for several models.

    Raises:
        UserError: names both.
    """
    if model_path and len(models) != 1:
        raise UserError(
            f"{given('MODEL_PATH', model_path)} are the weights of one model, and {given('MODELS', ' '.join(models))} "
            "are several; start each model separately"
        )


def default_models() -> tuple[str, ...]:
    """The paper's three, the Math models first."""
    return tuple(sorted(hub_names(), key=lambda name: ("math" not in name, name)))


def reproduce_table(options: TableRunOptions) -> int:
    """Run the command; returns its exit status: 0, or 1 if a cell failed, or 128 and a signal's number.

    Raises:
        UserError: a fault in the options.
    """
    cells = table_cells(options.models, options.methods, options.seeds)
    check_weights(options.models, options.training.model_path)
    print(plan(options, cells), flush=True)
    if options.training.print_only:
        return 0
    try:
        failed = check_all(options, cells) if options.training.dry_run else run_all(options, cells)
    except InterruptedBySignal as end:
        return end.status
    if failed:
        print(f"{len(failed)} cell(s) failed; the same command tries them again:", file=sys.stderr)
        print("\n".join(f"  {name}" for name in failed), file=sys.stderr)
        return 1
    return 0


class InterruptedBySignal(Exception):
    """A cell was ended by a signal, which ends the whole command."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def plan(options: TableRunOptions, cells: Sequence[Cell]) -> str:
    """The state of each cell, and an estimate for the cells to train."""
    steps, budget, out = options.training.steps, options.training.budget, options.out.resolve()
    length = f"{steps} steps" if budget == Budget() else f"{budget} ({steps} steps at most)"
    lines = [f"plan: {len(cells)} cells of {length}, and the start of each model evaluated; {out}"]
    left = []
    for cell in cells:
        state = _state(options, cell)
        if state == "to do":
            left.append(cell)
        spent = latest_spent(_run(options, cell) / "checkpoints")
        cost = "" if spent is None else f" ({spent})"
        lines.append(f"  {cell.model:<22} {cell.method:<24} seed {cell.seed:<3} {state}{cost}")
    rates = [options.seconds_per_step or SECONDS_PER_STEP.get(cell.method, OTHER_SECONDS_PER_STEP) for cell in left]
    source = f"SECONDS_PER_STEP={options.seconds_per_step:g}" if options.seconds_per_step else RATES
    gpus = options.training.nnodes * options.training.workers_per_node
    longest = (budget.gpu_hours or math.inf) / gpus
    hours = math.fsum(min(rate * steps / 3600, longest) for rate in rates)
    at_most = "at most " if budget.tokens else ""
    estimate = (
        f"estimate: {at_most}{hours:.0f} hours for the {len(left)} cells to train, one after the other; from {source}."
    )
    lines += textwrap.wrap(estimate, 120)
    if budget != Budget():
        lines += textwrap.wrap(
            "A cell ends at the first step at which its budget is spent; one that ends by its steps first has spent "
            "less, so set STEPS high enough. What each has spent is beside it, once it has a checkpoint.",
            120,
        )
    lines.append(
        "Not included: start-up, validations, checkpoints and the evaluations (1275 problems, greedy and the samples)."
    )
    return "\n".join(lines)


def check_all(options: TableRunOptions, cells: Sequence[Cell]) -> list[str]:
    """The preflight of each cell, in this process; returns the cells with a problem."""
    failed = []
    for cell in cells:
        print(f"== preflight of {cell.model} {cell.method} seed {cell.seed}", flush=True)
        if _survived(lambda cell=cell: train(_training(options, cell))) != 0:
            failed.append(str(cell))
    return failed


def run_all(options: TableRunOptions, cells: Sequence[Cell]) -> list[str]:
    """Evaluate each model, train and evaluate each cell, write the table; returns what failed."""
    failed = []
    for model in options.models:
        print(f"== the start: {model}", flush=True)
        base = replace(options.evaluation, model=model, method="Base", out=_result(options, model, "Base"))
        if _evaluate(base) != 0:
            failed.append(f"{model} Base -")
    for cell in cells:
        print(f"== {cell.model} {cell.method} seed {cell.seed}", flush=True)
        if _train(options, cell) != 0:
            failed.append(str(cell))
            continue
        of_run = {"run": _run(options, cell), "model": "", "model_path": "", "out": _result_of(options, cell)}
        if _evaluate(replace(options.evaluation, **of_run)) != 0:
            failed.append(str(cell))
    results = sorted(path.parent for path in (options.out.resolve() / "results").glob("*/summary.json"))
    if results:
        table = options.out.resolve() / "table"
        command = ["table", *map(str, results), "--paper-rows", "models", "--out", str(table)]
        if call([sys.executable, "-m", "verl_ispo.cli", *command]) == 0:
            print(f"Table: {table / 'table.md'}")
        else:
            failed.append(f"the table {table}")
    return failed


def _train(options: TableRunOptions, cell: Cell) -> int:
    training = _training(options, cell)
    if not options.launcher:
        return _survived(lambda: train(training))
    command = [*shlex.split(options.launcher), *training.arguments]
    return _survived(lambda: call(command, {**os.environ, **as_variables(training)}))


def _evaluate(options: EvaluationRunOptions) -> int:
    """In a separate process, which frees the GPU's memory at its end."""
    return _survived(lambda: call(eval_command(options)))


def _survived(work: Callable[[], int]) -> int:
    """The status of one cell's work; a user's fault in the cell is printed and gives a status too.

    Raises:
        InterruptedBySignal: the work was ended by a signal.
    """
    try:
        status = work()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if status in SIGNAL_STATUSES:
        raise InterruptedBySignal(status)
    return status


def _training(options: TableRunOptions, cell: Cell) -> TrainingOptions:
    return replace(options.training, model=cell.model, method=cell.method, seed=cell.seed, out=_run(options, cell))


def _run(options: TableRunOptions, cell: Cell) -> Path:
    return options.out.resolve() / "runs" / choose_model(cell.model).name / f"{cell.method}-seed{cell.seed}"


def _result_of(options: TableRunOptions, cell: Cell) -> Path:
    return _result(options, cell.model, f"{cell.method}-seed{cell.seed}")


def _result(options: TableRunOptions, model: str, what: str) -> Path:
    return options.out.resolve() / "results" / f"{choose_model(model).name}-{what}"


def _state(options: TableRunOptions, cell: Cell) -> str:
    if (_result_of(options, cell) / "summary.json").exists():
        return "done"
    return "trained" if (_run(options, cell) / "done").exists() else "to do"
