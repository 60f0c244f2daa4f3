"""Puts results of several checkpoints into one table: scores with intervals, seeds, and the paper's scores beside them.

Rules:

- A cell holds a score only if a finished evaluation produced it; else it says why there is none.
- All results of a benchmark are about the same problems with the same ground truths, or the table is refused.
- Results of one base model and method with different training seeds make one row: its score is the mean over seeds, its
  interval is over problems (each problem's score averaged over the seeds), and the spread between seeds is given
  separately.
- The checkpoint is the one that the evaluation was given; how it was chosen is named, and never depends on a score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.benchmark_names import LATER_BENCHMARKS
from verl_ispo.evaluation.calibration import interval
from verl_ispo.evaluation.calibration_scores import BenchmarkCalibration, benchmark_calibration, has_log_probs
from verl_ispo.evaluation.metrics import CALIBRATION, Metric, problem_scores
from verl_ispo.evaluation.paper_results import (
    BENCHMARK_PROBLEMS,
    COUNT_NOTE,
    PaperFigure,
    canonical,
    find_figure,
    paper_figures,
    paper_spelling,
)
from verl_ispo.evaluation.results import BenchmarkResult, EvaluationResult
from verl_ispo.evaluation.statistics import (
    Interval,
    Scores,
    between_seeds,
    is_flat,
    macro_mean_interval,
    mean_interval,
)
from verl_ispo.user_error import UserError

NOT_RUN = "not run"
UNFINISHED = "unfinished"
AVERAGE = "Average"
FLAT_NOTE = (
    "All problems of a benchmark score the same here, which adds no width to the average's interval: it is too narrow, "
    "or there is none."
)
_SHOWN_IDS = 5
_COMPARED_OPTIONS = ("temperature", "top_p", "max_new_tokens", "context_tokens")


@dataclass(frozen=True)
class Score:
    """A score that runs have produced, in [0, 1].

    Attributes:
        value: mean over problems, then over training seeds.
        interval: over problems; `None` where it is undefined.
        problems: number of problems.
        seeds: each training seed's name and score.
        seed_deviation: standard deviation between seeds; `None` for a single one.
        notes: caveats.
    """

    value: float
    interval: Interval | None
    problems: int
    seeds: tuple[tuple[str, float], ...]
    seed_deviation: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a score, or in words why there is none; and the paper's or a reference's, if any."""

    score: Score | None
    missing: str
    paper: PaperFigure | None


@dataclass(frozen=True)
class Row:
    """One method on one base model; ``cells`` in the order of the table's columns."""

    base_model: str
    method: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class MetricTable:
    """All rows for one metric; the last column is the average where there are several benchmarks."""

    metric: Metric
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Group:
    """The results of one base model and method, one for each training seed."""

    base_model: str
    method: str
    results: tuple[EvaluationResult, ...]

    def scores(self, benchmark: str, metric: Metric) -> list[tuple[str, Scores]] | str:
        """Each seed's scores over the problems, or why the group has none: every seed must have run."""
        found: list[tuple[str, Scores]] = []
        for result in self.results:
            if benchmark not in result.planned_benchmarks:
                return NOT_RUN
            if not result.finished:
                return UNFINISHED
            values = problem_scores(result.benchmarks[benchmark], metric)
            if isinstance(values, str):
                return values
            found.append((seed_name(result), values))
        return found or NOT_RUN

    def mean_scores(self, benchmark: str, metric: Metric) -> Scores | None:
        """Each problem's score averaged over the seeds, `None` if one of them did not run."""
        scores = self.scores(benchmark, metric)
        return None if isinstance(scores, str) else np.mean([values for _, values in scores], axis=0)


def seed_name(result: EvaluationResult) -> str:
    """The training seed as text."""
    return "-" if result.training_seed is None else str(result.training_seed)


def group_results(results: Sequence[EvaluationResult]) -> list[Group]:
    """Put results of one base model and method together, in the order given; models that belong together stay so.

    Raises:
        UserError: if two results have the same base model, method and training seed; if their problems differ;
            or if results of one base model were sampled or graded by other rules.
    """
    if not results:
        raise UserError("give at least one folder that verl-ispo eval has written")
    known = [figure.base_model for figure in paper_figures()]
    by_name: dict[str, dict[str, list[EvaluationResult]]] = {}
    for result in results:
        methods = by_name.setdefault(paper_spelling(result.base_model, known), {})
        same_method = methods.setdefault(result.method, [])
        for other in same_method:
            if other.training_seed == result.training_seed:
                raise UserError(
                    f"{other.folder} and {result.folder} are both {result.base_model}, {result.method}, training seed "
                    f"{seed_name(result)}. Leave one out, or rename one: repeat its verl-ispo eval command with "
                    "another --method or --training-seed (nothing is sampled again)"
                )
        same_method.append(result)
    finished = [result for result in results if result.finished]
    refuse_mixed_problems(finished)
    for methods in by_name.values():
        _refuse_mixed_rules([result for same in methods.values() for result in same])
    return [
        Group(base_model, method, tuple(same))
        for base_model, methods in by_name.items()
        for method, same in methods.items()
    ]


def with_paper_rows(groups: Sequence[Group], which: str, reference: Sequence[PaperFigure] = ()) -> list[Group]:
    """Add rows that were not run, of the paper and of ``reference``: ``run`` none, ``models`` those of models that were
    run, ``all`` all.
    """
    by_model: dict[str, list[Group]] = {}
    for group in groups:
        by_model.setdefault(group.base_model, []).append(group)
    if which != "run":
        for figure in (*paper_figures(), *reference):
            base_model = paper_spelling(figure.base_model, list(by_model))
            if which == "models" and base_model not in by_model:
                continue
            of_model = by_model.setdefault(base_model, [])
            if all(canonical(group.method) != canonical(figure.method) for group in of_model):
                of_model.append(Group(base_model, figure.method, ()))
    return [group for of_model in by_model.values() for group in of_model]


def table_benchmarks(groups: Sequence[Group]) -> list[str]:
    """The columns: the paper's five in its order if one of its models is there, then the other evaluated ones."""
    figures = paper_figures()
    evaluated = list(
        dict.fromkeys(name for group in groups for result in group.results for name in result.planned_benchmarks)
    )
    by_paper = list(dict.fromkeys(figure.benchmark for figure in figures))
    if any(group.base_model == figure.base_model for group in groups for figure in figures):
        names = {canonical(name): name for name in evaluated}
        columns = [names.pop(canonical(name), name) for name in by_paper]
        return columns + list(names.values())
    return sorted(evaluated, key=lambda name: _paper_position(name, by_paper))


def default_metrics(results: Sequence[EvaluationResult]) -> list[Metric]:
    """Greedy pass@1; avg@k, maj@k, pass@k for the smallest number of samples that a result has; and calibration, where
    a result has log-probs.
    """
    drawn = [int(result.manifest["options"]["n"]) for result in results]
    sampled = min((n for n in drawn if n > 0), default=0)
    more = [Metric(kind, sampled) for kind in ("avg", "maj", "pass")] if sampled else []
    told = any(has_log_probs(benchmark) for result in results for benchmark in result.benchmarks.values())
    return [Metric("greedy", 1), *more, *(Metric(kind, 0) for kind in CALIBRATION if told)]


def build_metric_table(
    groups: Sequence[Group], benchmarks: Sequence[str], metric: Metric, reference: Sequence[PaperFigure] = ()
) -> MetricTable:
    """All cells of one metric."""
    rows = []
    for group in groups:
        if metric.is_calibration:
            cells = _calibration_cells(group, benchmarks, metric)
        else:
            cells = [_cell(group, benchmark, metric, reference) for benchmark in benchmarks]
            if len(benchmarks) > 1:
                cells.append(_average(group, averaged_benchmarks(benchmarks), metric))
        rows.append(Row(group.base_model, group.method, tuple(cells)))
    return MetricTable(metric, table_columns(benchmarks), tuple(rows))


def table_columns(benchmarks: Sequence[str]) -> tuple[str, ...]:
    """Headings of the benchmarks, and of their average where there are several."""
    columns = tuple(benchmark_title(name) for name in benchmarks)
    return (*columns, AVERAGE) if len(columns) > 1 else columns


def averaged_benchmarks(benchmarks: Sequence[str]) -> list[str]:
    """The benchmarks that the average is over: all of them, but none that is later than the paper beside others."""
    later = {canonical(name) for name in LATER_BENCHMARKS}
    return [name for name in benchmarks if canonical(name) not in later] or list(benchmarks)


def benchmark_title(name: str) -> str:
    """The paper's spelling of a benchmark's name, if it has it."""
    return paper_spelling(name, [figure.benchmark for figure in paper_figures()])


def curve_label(group: Group, groups: Sequence[Group]) -> str:
    """A row's name in a chart: the method, after its base model where there are several."""
    several = len({other.base_model for other in groups}) > 1
    return f"{group.base_model} {group.method}" if several else group.method


def _paper_position(name: str, by_paper: Sequence[str]) -> int:
    names = [canonical(other) for other in by_paper]
    return names.index(canonical(name)) if canonical(name) in names else len(names)


def _cell(group: Group, benchmark: str, metric: Metric, reference: Sequence[PaperFigure]) -> Cell:
    paper = find_figure(group.base_model, group.method, benchmark, metric.name, reference)
    scores = group.scores(benchmark, metric)
    if isinstance(scores, str):
        return Cell(None, scores, paper)
    seeds = tuple((name, float(values.mean())) for name, values in scores)
    value, deviation = between_seeds([score for _, score in seeds])
    by_problem = np.mean([values for _, values in scores], axis=0)
    expected = BENCHMARK_PROBLEMS.get(benchmark_title(benchmark), by_problem.size)
    notes = () if by_problem.size == expected else (COUNT_NOTE,)
    return Cell(Score(value, mean_interval(by_problem), by_problem.size, seeds, deviation, notes), "", paper)


def _average(group: Group, benchmarks: Sequence[str], metric: Metric) -> Cell:
    """The plain mean of the benchmarks' scores; each must have run."""
    found = [group.scores(benchmark, metric) for benchmark in benchmarks]
    missing = [scores for scores in found if isinstance(scores, str)]
    if missing:
        return Cell(None, missing[0] if len(set(missing)) == 1 else NOT_RUN, None)
    names = [name for name, _ in found[0]]
    per_seed = tuple(
        (name, float(np.mean([scores[index][1].mean() for scores in found]))) for index, name in enumerate(names)
    )
    value, deviation = between_seeds([score for _, score in per_seed])
    by_problem = [np.mean([values for _, values in scores], axis=0) for scores in found]
    notes = (FLAT_NOTE,) if any(is_flat(values) for values in by_problem) else ()
    problems = sum(values.size for values in by_problem)
    return Cell(Score(value, macro_mean_interval(by_problem), problems, per_seed, deviation, notes), "", None)


def _calibration_cells(group: Group, benchmarks: Sequence[str], metric: Metric) -> list[Cell]:
    """Each benchmark's calibration, and the plain mean where there are several; every seed must have run."""
    found: list[BenchmarkCalibration | str] = []
    for stream, benchmark in enumerate(benchmarks):
        if not group.results or any(benchmark not in result.planned_benchmarks for result in group.results):
            found.append(NOT_RUN)
        elif not all(result.finished for result in group.results):
            found.append(UNFINISHED)
        else:
            results = [result.benchmarks[benchmark] for result in group.results]
            found.append(benchmark_calibration(results, metric, stream))
    averaged = averaged_benchmarks(benchmarks)
    in_average = [one for benchmark, one in zip(benchmarks, found, strict=True) if benchmark in averaged]
    groups = [[one] for one in found] + ([in_average] if len(found) > 1 else [])
    return [_calibration_cell(group, of_group) for of_group in groups]


def _calibration_cell(group: Group, benchmarks: Sequence[BenchmarkCalibration | str]) -> Cell:
    missing = [one for one in benchmarks if isinstance(one, str)]
    if missing:
        return Cell(None, missing[0], None)
    found = [one for one in benchmarks if not isinstance(one, str)]
    per_seed = np.mean([one.measured.values for one in found], axis=0).tolist()
    value, deviation = between_seeds(per_seed)
    return Cell(
        Score(
            value,
            interval([one.measured for one in found]),
            sum(one.problems for one in found),
            tuple(zip(map(seed_name, group.results), per_seed, strict=True)),
            deviation,
            tuple(dict.fromkeys(note for one in found for note in one.notes)),
        ),
        "",
        None,
    )


def refuse_mixed_problems(results: Iterable[EvaluationResult]) -> None:
    """Refuse finished results of one benchmark that are not on the same problems.

    Raises:
        UserError: naming the ids, ground truths or folders that differ.
    """
    first: dict[str, tuple[EvaluationResult, BenchmarkResult]] = {}
    for result in results:
        for name, benchmark in result.benchmarks.items():
            other_result, other = first.setdefault(name, (result, benchmark))
            ours, theirs = _truths(benchmark), _truths(other)
            parts = [
                f"{len(ids)} only in {folder}: {', '.join(ids[:_SHOWN_IDS])}{' ...' if len(ids) > _SHOWN_IDS else ''}"
                for ids, folder in (
                    (sorted(set(theirs) - set(ours)), other_result.folder),
                    (sorted(set(ours) - set(theirs)), result.folder),
                )
                if ids
            ]
            parts += [
                f"{key}: ground truth {theirs[key]!r} in {other_result.folder}, {ours[key]!r} in {result.folder}"
                for key in sorted(set(ours) & set(theirs))
                if ours[key] != theirs[key]
            ][:_SHOWN_IDS]
            if parts:
                raise UserError(
                    f"benchmark {name}: the results are not on the same problems ({'; '.join(parts)}). Evaluate all "
                    "of them on one file, or make a table for each"
                )
            if [problem.question_id for problem in benchmark.problems] != [p.question_id for p in other.problems]:
                raise UserError(
                    f"benchmark {name}: {other_result.folder} and {result.folder} hold the same problems in different "
                    "order; evaluate both on one file"
                )


def _refuse_mixed_rules(results: Sequence[EvaluationResult]) -> None:
    """Within one base model, responses must have been drawn and graded alike."""
    first = results[0]
    for result in results[1:]:
        differences = [
            f"{name}: {first.manifest['options'][name]} and {result.manifest['options'][name]}"
            for name in _COMPARED_OPTIONS
            if first.manifest["options"][name] != result.manifest["options"][name]
        ]
        one, other = _grader(first.manifest), _grader(result.manifest)
        if one != other:
            differences.append(f"reward function: {one} and {other}")
        if differences:
            raise UserError(
                f"{first.folder} and {result.folder} are about {first.base_model}, but were evaluated by other rules "
                f"({'; '.join(differences)}); evaluate both alike, or make a table for each"
            )


def _grader(manifest: Mapping[str, object]) -> tuple[object, ...]:
    grader = manifest["grader"]
    assert isinstance(grader, Mapping)
    return grader["function"], str(grader["source_sha256"])[:12], grader["math_verify"]


def _truths(benchmark: BenchmarkResult) -> dict[str, object]:
    return {problem.question_id: problem.ground_truth for problem in benchmark.problems}
