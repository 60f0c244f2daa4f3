"""Tables of ``verl-ispo table --cost``: accuracy against tokens, and against GPU seconds of evaluation and training.

A method whose responses are longer, or that trained longer, has had more of a budget than its accuracy tells. What an
evaluation or a training did not record is said to be so; nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from verl_ispo.evaluation.document_part import NOT_RECORDED, Chart, Curve, DocumentPart
from verl_ispo.evaluation.layout_text import interval_text, percent
from verl_ispo.evaluation.results import BenchmarkResult, EvaluationResult, ProblemResult
from verl_ispo.evaluation.statistics import Scores, macro_mean_interval, mean_interval
from verl_ispo.evaluation.table import NOT_RUN, UNFINISHED, Group, averaged_benchmarks, curve_label, table_columns
from verl_ispo.evaluation.timing import read_timing

HALVINGS = 4
"""Token budgets: the longest response that was allowed, and its half, quarter, ..., this often halved."""

TOKENS_READING = (
    "Accuracy of the sampled responses (the greedy ones where none were sampled) with the 95 % interval over problems; "
    "their mean length; tokens of all responses for each correct one. Within T tokens: only responses of at most T "
    "tokens count as correct, which is what --max-new-tokens T would have given at the least (a response that is cut "
    "there may hold its answer already)."
)
COST_READING = (
    "Accuracy is the mean over the benchmarks, as in the scores. Evaluation: seconds of sampling and grading by the "
    "clock, times GPUs; the model's loading is left out, and so is what a kill lost. Training: from the run's own "
    "metrics up to the checkpoint, seconds of its steps times GPUs (times worker processes on a CPU), and tokens of "
    "prompts and responses. Seconds on different devices do not compare. "
    f"'{NOT_RECORDED}': the evaluation is older than these records, or the checkpoint's run has no metrics beside it; "
    "a base model's own training is never in it."
)


def cost_parts(groups: Sequence[Group], benchmarks: Sequence[str]) -> list[DocumentPart]:
    """The two tables; rows that nobody ran are left out."""
    groups = [group for group in groups if group.results]
    return [_tokens_part(groups, benchmarks), _cost_part(groups, benchmarks)]


def responses(problem: ProblemResult) -> list[tuple[bool, int]]:
    """Grade and tokens of a problem's sampled responses, or of the greedy one where none were sampled."""
    if problem.sampled:
        return list(zip(problem.sampled, problem.tokens, strict=True))
    return [(problem.greedy, problem.greedy_tokens)]


def scores_within(results: Sequence[BenchmarkResult], budget: int) -> Scores:
    """Each problem's share of responses that are correct and have at most ``budget`` tokens, averaged over seeds."""
    return np.mean(
        [
            [np.mean([correct and tokens <= budget for correct, tokens in responses(one)]) for one in result.problems]
            for result in results
        ],
        axis=0,
    )


def _tokens_part(groups: Sequence[Group], benchmarks: Sequence[str]) -> DocumentPart:
    longest = max(_longest(group) for group in groups)
    budgets = [max(1, longest // 2**halving) for halving in range(HALVINGS, -1, -1)]
    rows: list[list[str]] = []
    csv_rows: list[list[Any]] = []
    charts = []
    for at, column in enumerate(table_columns(benchmarks)):
        names = [benchmarks[at]] if at < len(benchmarks) else averaged_benchmarks(benchmarks)
        curves = []
        for group in groups:
            head = [column, group.base_model, group.method]
            reason = _missing(group, names)
            if reason:
                rows.append([*head, reason, *[""] * (2 + HALVINGS)])
                continue
            results = [[result.benchmarks[name] for result in group.results] for name in names]
            mean, per_correct = _lengths(results)
            reached = [budget for budget in budgets if budget <= _longest(group)]
            cells = []
            for budget in dict.fromkeys([*reached, _longest(group)]):
                scores = [scores_within(of_benchmark, budget) for of_benchmark in results]
                value = float(np.mean([one.mean() for one in scores]))
                between = mean_interval(scores[0]) if len(scores) == 1 else macro_mean_interval(scores)
                cells.append((budget, value, between))
                ends = [between and between.low, between and between.high]
                problems = sum(one.size for one in scores)
                csv_rows.append([*head, budget, value, *ends, problems, mean, per_correct])
            full = cells[-1]
            within = {budget: f"{percent(value)} {interval_text(between)}" for budget, value, between in cells}
            rows.append(
                [
                    *head,
                    f"{percent(full[1])} {interval_text(full[2])}",
                    number(mean),
                    "none correct" if per_correct is None else number(per_correct),
                    *(within.get(budget, NOT_RUN) for budget in budgets[:-1]),
                ]
            )
            x, y, _ = zip(*cells, strict=True)
            curves.append(Curve(curve_label(group, groups), x, y))
        charts.append(Chart(column, "longest response (tokens)", "accuracy within it", True, tuple(curves)))
    return DocumentPart(
        "accuracy_by_tokens",
        "Accuracy against tokens",
        TOKENS_READING,
        (
            *("benchmark", "base model", "method", "accuracy", "mean tokens", "tokens per correct response"),
            *(f"within {budget:,} tokens" for budget in budgets[:-1]),
        ),
        rows,
        (
            *("benchmark", "base_model", "method", "within_tokens", "accuracy", "low", "high", "problems"),
            *("mean_tokens", "tokens_per_correct"),
        ),
        csv_rows,
        charts,
    )


def _cost_part(groups: Sequence[Group], benchmarks: Sequence[str]) -> DocumentPart:
    rows: list[list[str]] = []
    csv_rows: list[list[Any]] = []
    points = []
    averaged = averaged_benchmarks(benchmarks)
    for group in groups:
        reason = _missing(group, averaged)
        accuracy = None
        if not reason:
            per_benchmark = [
                scores_within([result.benchmarks[name] for result in group.results], _longest(group)).mean()
                for name in averaged
            ]
            accuracy = float(np.mean(per_benchmark))
        sampling, devices, sampling_text = _sampling(group.results)
        seconds, tokens, training_text, tokens_text = _training(group.results)
        drawn = _mean(sum(one.counts.samples for one in result.benchmarks.values()) for result in group.results)
        each = None if sampling is None or not drawn else sampling / drawn
        rows.append(
            [
                *(group.base_model, group.method, reason or percent(accuracy or 0.0)),
                *("-" if not drawn else number(drawn), devices, sampling_text),
                *("-" if each is None else number(each), training_text, tokens_text),
            ]
        )
        csv_rows.append([group.base_model, group.method, accuracy, drawn, devices, sampling, seconds, tokens])
        if accuracy is not None and seconds is not None:
            points.append(Curve(curve_label(group, groups), (seconds,), (accuracy,)))
    return DocumentPart(
        "cost",
        "Accuracy against GPU seconds",
        COST_READING,
        (
            *("base model", "method", "accuracy", "responses", "evaluated on", "evaluation, GPU seconds"),
            *("per response", "training, GPU seconds", "training, tokens"),
        ),
        rows,
        (
            *("base_model", "method", "accuracy", "responses", "evaluated_on", "evaluation_device_seconds"),
            *("training_device_seconds", "training_tokens"),
        ),
        csv_rows,
        [Chart("Accuracy against training", "training, seconds times devices", "mean accuracy", False, tuple(points))],
    )


def _sampling(results: Sequence[EvaluationResult]) -> tuple[float | None, str, str]:
    """Device seconds of one evaluation (mean over training seeds), where, and both as text."""
    found = [read_timing(result.folder) for result in results]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return (
            None,
            NOT_RECORDED,
            NOT_RECORDED if not known else f"{NOT_RECORDED} for {len(found) - len(known)} of them",
        )
    devices = list(dict.fromkeys(device or "a server" for one in known for device in one.devices))
    where = ", ".join(devices)
    drawn = [_timed(result) for result in results]
    if any(one.responses < wanted for one, wanted in zip(known, drawn, strict=True)):
        timed = sum(one.responses for one in known)
        return None, where, f"{NOT_RECORDED} for {sum(drawn) - timed:,} of {sum(drawn):,} responses"
    if devices == ["cpu"]:
        seconds = _mean(one.seconds for one in known)
        return seconds, where, f"{number(seconds)} s on a CPU"
    gpu_seconds = [one.gpu_seconds for one in known if one.gpu_seconds is not None]
    if len(gpu_seconds) < len(known) or "cpu" in devices:
        return None, where, NOT_RECORDED if "cpu" not in devices else f"{NOT_RECORDED} (partly on a CPU)"
    return _mean(gpu_seconds), where, number(_mean(gpu_seconds))


def _training(results: Sequence[EvaluationResult]) -> tuple[float | None, int | None, str, str]:
    """Device seconds and tokens of one training (mean over training seeds), as numbers and as text."""
    found = [result.manifest["model"].get("training") for result in results]
    known = [one for one in found if isinstance(one, dict)]
    if len(known) < len(found):
        said = NOT_RECORDED if not known else f"{NOT_RECORDED} for {len(found) - len(known)} of {len(found)} seeds"
        return None, None, said, said
    steps, recorded = sum(one["steps"] for one in known), sum(one["recorded_steps"] for one in known)
    if recorded < steps:
        said = f"{NOT_RECORDED} for {steps - recorded:,} of {steps:,} steps"
        return None, None, said, said
    seconds, tokens = _mean(one["device_seconds"] for one in known), _mean(one["tokens"] for one in known)
    devices = {one["device"] for one in known}
    suffix = {"cuda": "", "cpu": " s of worker processes on a CPU"}.get(devices.pop(), " (device not recorded)")
    if devices:
        return None, int(tokens), "seeds on different devices", number(tokens)
    return seconds, int(tokens), f"{number(seconds)}{suffix}", number(tokens)


def _timed(result: EvaluationResult) -> int:
    """Responses that were sampled: those to a prompt that fills the context were not."""
    return sum(one.counts.samples - one.counts.prompt_too_long for one in result.benchmarks.values())


def _lengths(results: Sequence[Sequence[BenchmarkResult]]) -> tuple[float, float | None]:
    """Mean tokens of a response, and tokens per correct one; plain means over benchmarks and seeds of the former."""
    means, tokens, correct = [], 0, 0
    for of_benchmark in results:
        every = [one for result in of_benchmark for problem in result.problems for one in responses(problem)]
        means.append(np.mean([length for _, length in every]))
        tokens += sum(length for _, length in every)
        correct += sum(is_correct for is_correct, _ in every)
    return float(np.mean(means)), tokens / correct if correct else None


def _missing(group: Group, benchmarks: Sequence[str]) -> str:
    """Why a row has no numbers, or nothing."""
    if any(name not in result.planned_benchmarks for result in group.results for name in benchmarks):
        return NOT_RUN
    return "" if all(result.finished for result in group.results) else UNFINISHED


def _longest(group: Group) -> int:
    return int(max(result.manifest["options"]["max_new_tokens"] for result in group.results))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def number(value: float) -> str:
    """Three digits of a small number, all whole digits of a large one."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
