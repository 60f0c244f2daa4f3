"""Everything that a table document shows, before it is laid out; a report can show it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verl_ispo.evaluation.baseline_comparison import Comparison, choose_baseline, compare
from verl_ispo.evaluation.document_part import DocumentPart
from verl_ispo.evaluation.metrics import Metric
from verl_ispo.evaluation.paper_results import DOUBT_NOTE, SOURCE_NOTE, PaperFigure
from verl_ispo.evaluation.results import EvaluationResult
from verl_ispo.evaluation.samples import LEAST_SAMPLES, SMALL_SET, lacks_samples
from verl_ispo.evaluation.table import (
    Group,
    MetricTable,
    averaged_benchmarks,
    benchmark_title,
    build_metric_table,
    default_metrics,
    group_results,
    table_benchmarks,
    with_paper_rows,
)


@dataclass(frozen=True)
class TableDocument:
    """Everything that is shown, ready to be laid out.

    Attributes:
        tables: one for each metric.
        baseline: the method that others are compared with, `None` if there is none.
        comparisons: of all metrics that are compared.
        groups: the rows' results, for the list of runs.
        notes: caveats on single cells, in the order of their letters a, b, ...
        remarks: caveats on the whole document.
        parts: tables on request.
    """

    tables: tuple[MetricTable, ...]
    baseline: str | None
    comparisons: tuple[Comparison, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    parts: tuple[DocumentPart, ...] = ()


def build_document(
    results: Sequence[EvaluationResult],
    metrics: Sequence[Metric] = (),
    baseline: str | None = None,
    paper_rows: str = "run",
    reference: Sequence[PaperFigure] = (),
) -> TableDocument:
    """Build all tables and comparisons.

    Args:
        results (`Sequence[EvaluationResult]`): of any number of checkpoints.
        metrics (`Sequence[Metric]`, *optional*): greedy pass@1, avg@k, maj@k and pass@k by default.
        baseline (`str`, *optional*): method to compare with, `GRPO` or else `Base` by default.
        paper_rows (`str`, *optional*, defaults to `"run"`): see `with_paper_rows`.
        reference (`Sequence[PaperFigure]`, *optional*): more figures to show, see `reference_figures`.

    Raises:
        UserError: see `group_results`.
    """
    groups = with_paper_rows(group_results(results), paper_rows, reference)
    benchmarks = table_benchmarks(groups)
    metrics = list(metrics) or default_metrics(results)
    tables = tuple(build_metric_table(groups, benchmarks, metric, reference) for metric in metrics)
    chosen = choose_baseline(groups, baseline)
    comparisons = [] if chosen is None else compare(groups, benchmarks, metrics, chosen)
    cells = [cell for table in tables for row in table.rows for cell in row.cells]
    notes = [
        note
        for cell in cells
        for note in (*(cell.score.notes if cell.score else ()), *(cell.paper.notes if cell.paper else ()))
    ]
    remarks = _remarks(groups)
    averaged = averaged_benchmarks(benchmarks)
    if later := [benchmark_title(name) for name in benchmarks if name not in averaged]:
        remarks.append(f"The average leaves out {', '.join(later)}, later than the paper and its models.")
    if any(cell.paper and cell.paper.label == "paper" for cell in cells):
        remarks += [SOURCE_NOTE, DOUBT_NOTE]
    return TableDocument(tables, chosen, tuple(comparisons), tuple(groups), tuple(dict.fromkeys(notes)), tuple(remarks))


def _remarks(groups: Sequence[Group]) -> list[str]:
    """What a reader has to know about these results."""
    results = [result for group in groups for result in group.results]
    rows_by_rule: dict[str, list[str]] = {}
    for group in groups:
        for result in group.results:
            rows = rows_by_rule.setdefault(str(result.manifest["model"]["checkpoint_rule"]), [])
            if (row := f"{group.base_model} {group.method}") not in rows:
                rows.append(row)
    rules = "; ".join(f"{rule} ({', '.join(rows)})" for rule, rows in rows_by_rule.items())
    by_hand = any("by hand" in rule for rule in rows_by_rule)
    warning = " A step that was chosen by hand may have been chosen by its score." if by_hand else ""
    remarks = [f"Checkpoint rule: {rules}.{warning}"]
    finished = [result for result in results if result.finished]
    names = {name for result in finished for name in result.benchmarks}
    prompts = [
        {
            tuple(problem.prompt_sha256 for problem in result.benchmarks[name].problems)
            for result in finished
            if name in result.benchmarks
        }
        for name in names
    ]
    for what, differ in (
        ("prompts", any(len(of_benchmark) > 1 for of_benchmark in prompts)),
        ("samplers or their versions", len({str(result.manifest["sampler"]) for result in results}) > 1),
    ):
        if differ:
            remarks.append(f"The {what} are not the same in all rows; part of a difference may come from that.")
    remarks += _few_samples(groups)
    unfinished = [str(result.folder.name) for result in results if not result.finished]
    if unfinished:
        remarks.append(
            f"'unfinished': {', '.join(unfinished)} lacks samples; the same verl-ispo eval command resumes it."
        )
    return remarks


def _few_samples(groups: Sequence[Group]) -> list[str]:
    """A warning for each small set with few samples, by name."""
    rows: dict[tuple[str, int, int], list[str]] = {}
    for group in groups:
        for result in group.results:
            drawn = int(result.manifest["options"]["n"])
            for name, benchmark in result.benchmarks.items():
                if lacks_samples(len(benchmark.problems), drawn):
                    of_set = rows.setdefault((benchmark_title(name), len(benchmark.problems), drawn), [])
                    if (row := f"{group.base_model} {group.method}") not in of_set:
                        of_set.append(row)
    return [
        f"{title} has {problems} problems and only {drawn} sampled responses to each ({', '.join(names)}): on a set of "
        f"at most {SMALL_SET} problems draw at least {LEAST_SAMPLES} (--n), since the chance of the sampling "
        "alone moves its score by points."
        for (title, problems, drawn), names in rows.items()
    ]
