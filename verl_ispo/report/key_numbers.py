"""The head of the page: each run in a few numbers, and sentences that state these numbers and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verl_ispo.report.dynamics import DUMP_TIME, ispo_time_share, validation_metrics
from verl_ispo.report.loaded_run import Run
from verl_ispo.report.number_format import MISSING, show
from verl_ispo.report.series_statistics import known, last_tenth, mean, median


@dataclass(frozen=True)
class KeyNumber:
    """A row of the table of key numbers.

    Attributes:
        label: what it is and how the run's values became one number.
        cells: one per run, as text.
    """

    label: str
    cells: list[str]


def key_numbers(runs: Sequence[Run]) -> list[KeyNumber]:
    """The table under the summary."""
    whole, end = mean, lambda values: mean(last_tenth(values))
    rows = [
        KeyNumber("training steps", [_steps(run) for run in runs]),
        _row(runs, "zero-advantage groups by outcome, mean", "ispo/zero_adv_rate/outcome", whole, True),
        _row(runs, "zero-advantage groups by training reward, mean", "ispo/zero_adv_rate/composite", whole, True),
        _row(runs, "order violations, mean", "ispo/order_violation_rate", whole, True),
        _row(runs, "critical-token entropy, correct rollouts, last tenth (nats)", "ispo/critical_entropy/correct", end),
        _row(runs, "critical-token entropy, incorrect rollouts, last tenth (nats)", "ispo/critical_entropy/wrong", end),
        _row(runs, "IFD, correct rollouts, last tenth (nats per token)", "ispo/ifd/correct/mean", end),
        _row(runs, "IFD, incorrect rollouts, last tenth (nats per token)", "ispo/ifd/wrong/mean", end),
        *(
            KeyNumber(f"held out: {label}, first → last", [_first_to_last(run, name) for run in runs])
            for label, name in validation_metrics(runs)
        ),
        KeyNumber(
            "training score, first → last tenth",
            [_start_to_end(run, "critic/score/mean") for run in runs],
        ),
        KeyNumber(
            "response length, first → last tenth (tokens)", [_start_to_end(run, "response_length/mean") for run in runs]
        ),
        _row(runs, "rollouts without an answer, last tenth", "ispo/answer_missing_rate", end, True),
        _row(runs, "answers with next to no trace, last tenth", "ispo/trace_dropped_rate", end, True),
        _row(runs, "time per step, median (s)", "timing_s/step", median),
        KeyNumber(
            "ISPO's share of it, median",
            [show(median(ispo_time_share(run)[1]), percent=True) for run in runs],
        ),
        KeyNumber("the dump's share of all time", [_dump_share(run) for run in runs]),
    ]
    return [row for row in rows if any(cell != MISSING for cell in row.cells)]


def critical_fractions(runs: Sequence[Run]) -> list[list[str]]:
    """Rows after the paper's table 5: run, step, share in the entropy filter, in the drift filter, in both."""
    rows = []
    for run in runs:
        steps = [step for step in run.log.training_steps if "ispo/critical_fraction/both" in run.log.steps[step]]
        if not steps:
            continue
        for step in dict.fromkeys(steps[round(part * (len(steps) - 1))] for part in (0, 0.1, 0.5, 1)):
            shares = [
                run.log.steps[step].get(f"ispo/critical_fraction/{name}") for name in ("entropy", "drift", "both")
            ]
            rows.append([run.name, str(step), *(show(share, percent=True) for share in shares)])
    return rows


def sentences(runs: Sequence[Run]) -> list[str]:
    """What the numbers are, in plain words."""
    said = [_on_lengths(runs)]
    for run in runs:
        parts = []
        outcome = mean(run.log.series("ispo/zero_adv_rate/outcome")[1])
        trained = mean(run.log.series("ispo/zero_adv_rate/composite")[1])
        if outcome is not None and trained is not None:
            parts.append(
                f"{show(outcome, True)} of the groups had no advantage by outcome and "
                f"{show(trained, True)} in the reward that was trained on"
            )
        accuracies = [
            values
            for _, name in validation_metrics([run])
            if "/acc/" in name and (values := known(run.log.series(name, sparse=True)[1]))
        ]
        if accuracies:
            first, last = (mean([values[at] for values in accuracies]) for at in (0, -1))
            over = f", unweighted over {len(accuracies)} sets" if len(accuracies) > 1 else ""
            parts.append(f"held-out accuracy went from {show(first, True)} to {show(last, True)}{over}")
        share = median(ispo_time_share(run)[1])
        if share is not None:
            parts.append(f"ISPO's own work took {show(share, True)} of a step (median)")
        if parts:
            said.append(f"{run.name}: {'; '.join(parts)}.")
    said.append(
        "These are single runs. A difference between two of them is a finding only if it holds across seeds and "
        "exceeds the noise of the problems; the intervals are in the evaluation table, not here."
    )
    return said


def _on_lengths(runs: Sequence[Run]) -> str:
    parts = [f"{run.name} ({_steps(run)})" for run in runs]
    last = {run.log.training_steps[-1] for run in runs if run.log.training_steps}
    uneven = f" They differ in length: compare them up to step {min(last)}." if len(last) > 1 else ""
    return f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}: {', '.join(parts)}.{uneven}"


def _steps(run: Run) -> str:
    steps = run.log.training_steps
    if not steps:
        return "validation only"
    missing = steps[-1] - steps[0] + 1 - len(steps)
    return f"steps {steps[0]} to {steps[-1]}" + (f", {missing} of them missing" if missing else "")


def _row(
    runs: Sequence[Run], label: str, name: str, reduce: Callable[[Sequence[float]], float | None], percent: bool = False
) -> KeyNumber:
    return KeyNumber(label, [show(reduce(run.log.series(name)[1]), percent) for run in runs])


def _first_to_last(run: Run, name: str) -> str:
    values = known(run.log.series(name, sparse=True)[1])
    return f"{show(values[0], True)} → {show(values[-1], True)}" if values else MISSING


def _start_to_end(run: Run, name: str) -> str:
    values = run.log.series(name)[1]
    if not known(values):
        return MISSING
    tenth = max(1, len(values) // 10)
    return f"{show(mean(values[:tenth]))} → {show(mean(values[-tenth:]))}"


def _dump_share(run: Run) -> str:
    dumping = known(run.log.series(DUMP_TIME)[1])
    whole = known(run.log.series("timing_s/step")[1])
    return show(sum(dumping) / sum(whole), percent=True) if dumping and sum(whole) > 0 else MISSING
