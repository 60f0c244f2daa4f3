"""Tables of ``verl-ispo table --sensitivity``: one model's accuracy by template, temperature, top-p and length.

A training teaches the form that its template asks for, so a base model scored with that template alone may look worse
than it is. The best of several settings is chosen on the problems that it is scored on, which flatters it: the table
says so, and what a choice on one half of the problems scores on the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verl_ispo.evaluation.document_part import DocumentPart
from verl_ispo.evaluation.layout_text import interval_text, percent, signed_points
from verl_ispo.evaluation.manifest import MANIFEST_NAME
from verl_ispo.evaluation.metrics import Metric, problem_scores
from verl_ispo.evaluation.results import EvaluationResult, load_result
from verl_ispo.evaluation.settings_grid import AS_GIVEN, VARIED, read_settings
from verl_ispo.evaluation.statistics import (
    Interval,
    Scores,
    difference_interval,
    macro_difference_interval,
    macro_mean_interval,
    mean_interval,
)
from verl_ispo.evaluation.table import (
    AVERAGE,
    NOT_RUN,
    UNFINISHED,
    averaged_benchmarks,
    benchmark_title,
    refuse_mixed_problems,
    seed_name,
    table_columns,
)

SPLITS = 200
"""Random halves of the problems for the choice of a setting (ours)."""

_SEED = 20260608
_TITLES = {"template": "template", "temperature": "temperature", "top_p": "top-p", "max_new_tokens": "longest response"}

READING = (
    "Accuracy of the sampled responses (greedy ones with --n 0) in percent, with the 95 % interval over problems. One "
    "value differs from the setting as given in each row; 'difference' is paired, problem by problem, with its "
    "bootstrap interval. 'As given' is the setting of the other tables, and the one that is trained with as long as "
    "the benchmarks were prepared with the training's template. Best: the highest mean among the values of one kind "
    "and the one as given."
)
OPTIMISM = (
    "The best of several settings was chosen on the problems that it is scored on, so its score is too high by what "
    "chance added: do not report it as the model's accuracy without saying so, and compare it with other models only "
    f"at their own best. 'Chosen on the other half': the setting that is best on a random half of the problems, scored "
    f"on the other half, mean of {SPLITS} splits both ways (ours). Spread: highest minus lowest, in points, chance "
    "included."
)


@dataclass(frozen=True)
class SettingResult:
    """One setting of a folder.

    Attributes:
        varied: one of `VARIED`; `None` for the one as given.
        name: as text.
        result: `None` if it has not begun.
    """

    varied: str | None
    name: str
    result: EvaluationResult | None

    def scores(self, benchmark: str) -> Scores | str:
        """Each problem's accuracy, or why there is none."""
        if self.result is None or benchmark not in self.result.planned_benchmarks:
            return NOT_RUN
        if not self.result.finished:
            return UNFINISHED
        drawn = int(self.result.manifest["options"]["n"])
        return problem_scores(self.result.benchmarks[benchmark], Metric("avg", drawn) if drawn else Metric("greedy", 1))

    def all_scores(self, benchmarks: Sequence[str]) -> list[Scores] | None:
        """Of every benchmark; `None` if one has none."""
        found = [scores for name in benchmarks if not isinstance(scores := self.scores(name), str)]
        return found if len(found) == len(benchmarks) else None


@dataclass(frozen=True)
class Sensitivity:
    """A folder of ``verl-ispo eval --vary-...``; the setting as given comes first."""

    folder: Path
    settings: tuple[SettingResult, ...]

    @property
    def head(self) -> list[str]:
        """Base model, method and training seed."""
        result = next(one.result for one in self.settings if one.result is not None)
        return [result.base_model, result.method, seed_name(result)]

    def alternatives(self, varied: str) -> list[SettingResult]:
        """The setting as given and those with another value of one kind."""
        return [one for one in self.settings if one.varied in (None, varied)]


def load_sensitivity(folder: Path) -> Sensitivity:
    """Read a folder of several settings.

    Raises:
        UserError: if it is no such folder, or its settings are not on the same problems.
    """
    noted = read_settings(folder)
    found = []
    for name, varied in noted["settings"].items():
        begun = (folder / name / MANIFEST_NAME).exists() or name == AS_GIVEN
        result = load_result(folder / name) if begun else None
        found.append(SettingResult(varied, _name(name, varied, result, noted["template"]), result))
    refuse_mixed_problems([one.result for one in found if one.result is not None and one.result.finished])
    order = (None, *VARIED)
    return Sensitivity(folder, tuple(sorted(found, key=lambda one: (order.index(one.varied), _value(one)))))


def sensitivity_parts(folders: Sequence[Sensitivity]) -> list[DocumentPart]:
    """The accuracy by setting, and the spread with the best setting of each kind beside the one as given."""
    names = dict.fromkeys(
        name for one in folders for row in one.settings if row.result for name in row.result.planned_benchmarks
    )
    return [_settings_part(folders, list(names)), _spread_part(folders)]


def chosen_on_other_half(settings: Sequence[Sequence[Scores]]) -> float | None:
    """Mean accuracy of the setting that is best on a half of the problems, on the other half.

    Args:
        settings (`Sequence` of `Sequence[Scores]`): for each setting the scores on each benchmark, on the same
            problems.

    Returns:
        `float`, or `None` where a benchmark has a single problem, which cannot be halved.
    """
    by_benchmark = [np.stack(scores) for scores in zip(*settings, strict=True)]  # settings x problems
    if any(scores.shape[1] < 2 for scores in by_benchmark):
        return None
    rng = np.random.default_rng(_SEED)
    found = []
    for _ in range(SPLITS):
        halves = [np.array_split(rng.permutation(scores.shape[1]), 2) for scores in by_benchmark]
        one, other = (
            np.mean([scores[:, half[at]].mean(axis=1) for scores, half in zip(by_benchmark, halves, strict=True)], 0)
            for at in (0, 1)
        )
        found += [other[one.argmax()], one[other.argmax()]]
    return float(np.mean(found))


def _settings_part(folders: Sequence[Sensitivity], benchmarks: Sequence[str]) -> DocumentPart:
    rows: list[list[str]] = []
    csv_rows: list[list[Any]] = []
    for folder in folders:
        own = _benchmarks(folder)
        given = folder.settings[0].all_scores(own)
        marks = _marks(folder, own)
        for setting in folder.settings:
            cells = [setting.scores(name) for name in benchmarks]
            shown = []
            for name, scores in zip(benchmarks, cells, strict=True):
                if isinstance(scores, str):
                    shown.append(scores)
                    continue
                csv_rows.append(_csv_row(folder, setting, benchmark_title(name), [scores], marks))
                shown.append(f"{percent(float(scores.mean()))} {interval_text(mean_interval(scores))} n={scores.size}")
            scores_here = setting.all_scores(own)
            if len(benchmarks) > 1:
                shown.append(_missing(cells) if scores_here is None else _mean_text(scores_here))
            if scores_here is not None and len(own) > 1:
                csv_rows.append(_csv_row(folder, setting, AVERAGE, scores_here, marks))
            compared = setting.varied is not None and given is not None and scores_here is not None
            difference = _difference(scores_here, given) if compared else "-"
            mark = "; ".join(marks.get(setting.name, []))
            rows.append([*folder.head, setting.name, *shown, difference, _truncated(setting), mark])
    return DocumentPart(
        "sensitivity",
        "Sensitivity to the setting",
        READING,
        (
            *("base model", "method", "training seed", "setting", *table_columns(benchmarks)),
            *("difference from as given", "truncated", "mark"),
        ),
        rows,
        (
            *("base_model", "method", "training_seed", "varied", "template", "temperature", "top_p", "max_new_tokens"),
            *("benchmark", "accuracy", "low", "high", "problems", "marks"),
        ),
        csv_rows,
    )


def _spread_part(folders: Sequence[Sensitivity]) -> DocumentPart:
    rows: list[list[str]] = []
    csv_rows: list[list[Any]] = []
    for folder in folders:
        own = _benchmarks(folder)
        for varied, finished in _kinds(folder, own):
            means = [_mean(scores) for _, scores in finished]
            best = int(np.argmax(means))
            best_name = finished[best][0].name if best else "as given"
            given = finished[0][1]
            half = chosen_on_other_half([scores for _, scores in finished])
            unfinished = len(folder.alternatives(varied)) - len(finished)
            spread = max(means) - min(means)
            rows.append(
                [
                    *folder.head,
                    _TITLES[varied],
                    str(len(finished)) + (f" ({unfinished} unfinished)" if unfinished else ""),
                    percent(means[0]),
                    f"{best_name}: {percent(means[best])}",
                    "-" if best == 0 else _difference(finished[best][1], given),
                    "-" if half is None else percent(half),
                    f"{percent(min(means))} to {percent(max(means))}: {percent(spread)}",
                ]
            )
            csv_rows.append(
                [*folder.head, varied, len(finished), means[0], best_name, means[best], half, min(means), max(means)]
            )
    return DocumentPart(
        "sensitivity_spread",
        "Spread over settings, and the best beside the one as given",
        OPTIMISM,
        (
            *("base model", "method", "training seed", "varied", "settings", "as given", "best (optimistic)"),
            *("best minus as given", "chosen on the other half", "lowest to highest: spread"),
        ),
        rows,
        (
            *("base_model", "method", "training_seed", "varied", "settings", "as_given", "best", "best_accuracy"),
            *("chosen_on_other_half", "lowest", "highest"),
        ),
        csv_rows,
    )


def _benchmarks(folder: Sensitivity) -> list[str]:
    """Those that the means are over."""
    result = folder.settings[0].result
    return [] if result is None else averaged_benchmarks(result.planned_benchmarks)


def _kinds(
    folder: Sensitivity, benchmarks: Sequence[str]
) -> Iterator[tuple[str, list[tuple[SettingResult, list[Scores]]]]]:
    """Each kind of variation with its finished settings, the one as given first; none without that one."""
    for varied in VARIED:
        finished = [
            (one, scores)
            for one in folder.alternatives(varied)
            if (scores := one.all_scores(benchmarks)) is not None and scores
        ]
        if len(finished) > 1 and finished[0][0].varied is None:
            yield varied, finished


def _marks(folder: Sensitivity, benchmarks: Sequence[str]) -> dict[str, list[str]]:
    """What is said of each setting, by its name."""
    marks = {folder.settings[0].name: ["as given"]}
    for varied, finished in _kinds(folder, benchmarks):
        best = int(np.argmax([_mean(scores) for _, scores in finished]))
        marks.setdefault(finished[best][0].name, []).append(f"best {_TITLES[varied]}")
    return marks


def _name(folder: str, varied: str | None, result: EvaluationResult | None, template: str | None) -> str:
    if varied is not None:
        value = folder.removeprefix(f"{varied}-")
        return f"{_TITLES[varied]} {value}"
    if result is None:
        return AS_GIVEN
    options = result.manifest["options"]
    return (
        f"as given: template {template or 'of the files'}, temperature {options['temperature']:g}, top-p "
        f"{options['top_p']:g}, at most {options['max_new_tokens']} tokens"
    )


def _value(setting: SettingResult) -> tuple[float, str]:
    """Numbers by size, names by the alphabet."""
    value = setting.name.rpartition(" ")[2]
    try:
        return float(value), ""
    except ValueError:
        return 0.0, value


def _missing(cells: Sequence[Scores | str]) -> str:
    """Why there is no average."""
    return UNFINISHED if UNFINISHED in [cell for cell in cells if isinstance(cell, str)] else NOT_RUN


def _mean(scores: Sequence[Scores]) -> float:
    return float(np.mean([one.mean() for one in scores]))


def _interval(scores: Sequence[Scores]) -> Interval | None:
    return mean_interval(scores[0]) if len(scores) == 1 else macro_mean_interval(scores)


def _mean_text(scores: Sequence[Scores]) -> str:
    return f"{percent(_mean(scores))} {interval_text(_interval(scores))}"


def _difference(scores: Sequence[Scores], given: Sequence[Scores]) -> str:
    pairs = list(zip(scores, given, strict=True))
    between = difference_interval(*pairs[0]) if len(pairs) == 1 else macro_difference_interval(pairs)
    return f"{signed_points(_mean(scores) - _mean(given))} {interval_text(between, signed=True)}"


def _truncated(setting: SettingResult) -> str:
    if setting.result is None or not setting.result.finished:
        return "-"
    counts = [benchmark.counts for benchmark in setting.result.benchmarks.values()]
    return f"{percent(sum(one.truncated for one in counts) / sum(one.samples for one in counts))} %"


def _csv_row(
    folder: Sensitivity, setting: SettingResult, benchmark: str, scores: Sequence[Scores], marks: dict[str, list[str]]
) -> list[Any]:
    assert setting.result is not None
    options = setting.result.manifest["options"]
    between = _interval(scores)
    return [
        *(*folder.head, setting.varied or AS_GIVEN, options.get("template"), options["temperature"]),
        *(options["top_p"], options["max_new_tokens"], benchmark, _mean(scores), between and between.low),
        *(between and between.high, sum(one.size for one in scores), "; ".join(marks.get(setting.name, []))),
    ]
