"""``verl-ispo report``: from run folders to one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import verl_ispo
from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.report.chart_panels import Drawing
from verl_ispo.report.config_diff import config_differences
from verl_ispo.report.dynamics import dynamics
from verl_ispo.report.figure_six import figure_six
from verl_ispo.report.html_page import ReportContent, StepOfGroups, render
from verl_ispo.report.key_numbers import critical_fractions, key_numbers, sentences
from verl_ispo.report.line_chart import SMOOTHED_FROM_STEPS, smoothing_window
from verl_ispo.report.loaded_run import Run, load_runs
from verl_ispo.report.method_payments import method_payments
from verl_ispo.report.rollout_view import show_group
from verl_ispo.report.table_file import read_table
from verl_ispo.report.visible_text import visible
from verl_ispo.runs.rollout_dump.reader import PromptOutcome, dumped_steps, read_groups, read_outcomes
from verl_ispo.user_error import UserError

REPORT_FILE = "report.html"
# Names and dumps may hold control sequences for the terminal.
MAX_LINE_CHARS = 1000


def run(
    runs: Sequence[str],
    out: Path,
    table: Path | None = None,
    steps: Sequence[int] | None = None,
    max_tokens: int = 300,
    early_steps: int | None = None,
) -> int:
    """Make the report and say where it is; returns the exit status, 2 for input that no report can be made of."""

    def work() -> None:
        html, gaps = build_report(runs, table, steps, max_tokens, early_steps)
        for gap in gaps:
            print(f"gap: {visible(gap, MAX_LINE_CHARS)}")
        file = out / REPORT_FILE
        try:
            write_text(file, [html])
        except OSError as error:
            raise UserError(f"--out {out}: {error}") from error
        print(f"{file} ({file.stat().st_size / 1e6:.1f} MB, self-contained: open it in a browser)")

    return run_command("verl-ispo report", work, to_terminal=lambda message: visible(message, MAX_LINE_CHARS))


def build_report(
    run_arguments: Sequence[str],
    table: Path | None,
    steps: Sequence[int] | None,
    max_tokens: int,
    early_steps: int | None,
) -> tuple[str, list[str]]:
    """The page as HTML, and what it lacks.

    Raises:
        UserError: input that no report can be made of.
    """
    evaluation_table = read_table(table) if table is not None else None
    runs = load_runs(run_arguments)
    for loaded in runs:
        line = f"{loaded.name}: {len(loaded.log.training_steps)} training steps from {loaded.path}"
        print(visible(line, MAX_LINE_CHARS), flush=True)
    drawing = Drawing.of(runs)
    outcomes, outcome_gaps = _read_all_outcomes(runs)
    shown_steps, rollout_gaps = _read_rollouts(runs, steps, max_tokens)
    content = ReportContent(
        runs=runs,
        sentences=sentences(runs),
        key_numbers=key_numbers(runs),
        critical_fractions=critical_fractions(runs),
        figures=[*dynamics(drawing), figure_six(drawing, outcomes, early_steps)],
        payments=method_payments([(shown.step, shown.groups) for shown in shown_steps]),
        steps=shown_steps,
        rollout_gaps=[*rollout_gaps, *outcome_gaps],
        table=evaluation_table,
        differences=config_differences([run for run in runs if run.config]),
        smoothing=[
            f"{run.name}: {smoothing_window(len(run.log.training_steps))} steps"
            for run in runs
            if len(run.log.training_steps) > SMOOTHED_FROM_STEPS
        ],
        made_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=verl_ispo.__version__,
    )
    gaps = [f"{run.name}: {gap}" for run in runs for gap in run.gaps]
    return render(content), [*gaps, *rollout_gaps, *outcome_gaps]


def _read_all_outcomes(runs: Sequence[Run]) -> tuple[dict[str, list[PromptOutcome]], list[str]]:
    outcomes: dict[str, list[PromptOutcome]] = {}
    gaps = []
    for run in runs:
        if run.dump is not None:
            outcomes[run.name], found = read_outcomes(run.dump)
            gaps += [f"{run.name}: {gap}" for gap in found]
    return outcomes, gaps


def _read_rollouts(
    runs: Sequence[Run], asked: Sequence[int] | None, max_tokens: int
) -> tuple[list[StepOfGroups], list[str]]:
    available = {run.name: dumped_steps(run.dump) for run in runs if run.dump is not None}
    gaps = [f"{name}: the dump holds no rollouts" for name, steps in available.items() if not steps]
    everywhere = sorted({step for steps in available.values() for step in steps})
    if asked:
        missing = sorted(set(asked) - set(everywhere))
        if missing:
            raise UserError(
                f"--steps {missing[0]}: no run dumped rollouts at that step; there are {everywhere or 'none'}"
            )
        chosen = sorted(set(asked))
    else:
        chosen = _first_middle_last(available)
    shown = []
    for step in chosen:
        groups = []
        for run in runs:
            if run.dump is None or step not in available[run.name]:
                continue
            found, problems = read_groups(run.dump, step)
            gaps += [f"{run.name}: {problem}" for problem in problems]
            groups += [show_group(run.name, group, max_tokens) for group in found]
        if groups:
            # Groups of one prompt next to each other, prompts in the order of the dumps.
            prompts = list(dict.fromkeys(shown_group.group.prompt_id for shown_group in groups))
            groups.sort(key=lambda shown_group: prompts.index(shown_group.group.prompt_id))
            shown.append(StepOfGroups(step, groups))
    return shown, gaps


def _first_middle_last(available: dict[str, list[int]]) -> list[int]:
    """Steps to show: of those that all runs with a dump have, so that groups can be compared; else of all."""
    dumps = [set(steps) for steps in available.values() if steps]
    if not dumps:
        return []
    steps = sorted(set.intersection(*dumps)) or sorted(set.union(*dumps))
    return sorted({steps[0], steps[len(steps) // 2], steps[-1]})
