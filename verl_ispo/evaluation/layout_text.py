"""Numbers and short texts as the Markdown and LaTeX layouts both write them."""

from __future__ import annotations

from collections.abc import Sequence

from verl_ispo.evaluation.baseline_comparison import Comparison
from verl_ispo.evaluation.document import TableDocument
from verl_ispo.evaluation.results import EvaluationResult
from verl_ispo.evaluation.statistics import CONFIDENCE_LEVEL, Interval
from verl_ispo.evaluation.table import Cell, Group, MetricTable, seed_name

LEVEL = f"{100 * CONFIDENCE_LEVEL:.0f} %"

READING = (
    f"Scores are percentages; in brackets the {LEVEL} interval over problems (bootstrap, BCa; exact binomial where all "
    "problems score 0 or all 1); n is the number of problems. With several training seeds the score is their mean and "
    "the interval is over problems, for these seeds; the standard deviation between seeds (sd) is separate. A cell "
    "without a finished run says so. The average is the plain mean of the benchmarks."
)
COMPARING = (
    f"Differences in points, on the same problems, with the {LEVEL} interval of the paired bootstrap over problems "
    "(percentile). The p-value is the exact McNemar test where both methods have one greedy answer per problem, else a "
    "paired sign-flip permutation test of averages. Holm's correction covers all comparisons listed. Seeds are "
    "averaged problem by problem, so a p-value is about these checkpoints, not about other training seeds."
)


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def signed_points(value: float) -> str:
    """A difference of shares in percentage points; no sign before a zero."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def interval_text(interval: Interval | None, signed: bool = False) -> str:
    """Both ends in percent, or that there is none."""
    if interval is None:
        return "[no interval]"
    show = signed_points if signed else percent
    return f"[{show(interval.low)}, {show(interval.high)}]"


def p_text(p_value: float) -> str:
    """A p-value with three decimals."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def cell_text(cell: Cell, document: TableDocument) -> tuple[str, str]:
    """What we have and what the paper or a reference has (empty if nothing), with the letters of their caveats."""
    if cell.score is None:
        ours = cell.missing
    else:
        score = cell.score
        ours = f"{percent(score.value)} {interval_text(score.interval)} n={score.problems}"
        if score.seed_deviation is not None:
            ours += f", sd {percent(score.seed_deviation)} ({len(score.seeds)} seeds)"
        ours += note_letters(score.notes, document)
    if cell.paper is None:
        return ours, ""
    return ours, f"{cell.paper.percent:.1f}{note_letters(cell.paper.notes, document)}"


def note_letters(notes: Sequence[str], document: TableDocument) -> str:
    """The letters of some caveats, as `` (a, b)``."""
    letters = [note_letter(document.notes.index(note)) for note in notes]
    return f" ({', '.join(letters)})" if letters else ""


def note_letter(index: int) -> str:
    """a, b, c, ..."""
    return chr(ord("a") + index)


def seeds_text(group: Group) -> str:
    """The training seeds of a row."""
    return ", ".join(seed_name(result) for result in group.results)


def comparison_fields(comparison: Comparison) -> list[str]:
    """One line of the comparisons: names, n, difference, interval, discordant problems, p, adjusted p, test."""
    test = comparison.test
    return [
        *(comparison.base_model, comparison.method, comparison.benchmark, comparison.metric.name),
        str(comparison.problems),
        signed_points(comparison.difference),
        interval_text(comparison.interval, signed=True),
        f"{test.only_first} / {test.only_second}",
        p_text(test.p_value),
        p_text(comparison.p_holm),
        {"mcnemar_exact": "McNemar, exact", "sign_flip": "sign flip"}[test.name],
    ]


def comparison_columns(baseline: str | None) -> list[str]:
    """Names of the columns of `comparison_fields`."""
    names = ["base model", "method", "benchmark", "metric", "n", "difference", "interval"]
    return [*names, f"only method / only {baseline}", "p", "p (Holm)", "test"]


def table_rows(table: MetricTable, document: TableDocument) -> list[list[str]]:
    """The lines of one metric: names, training seeds, and each cell with the paper's figure beside ours."""
    seeds = {(group.base_model, group.method): seeds_text(group) for group in document.groups}
    rows = []
    for row in table.rows:
        cells = [cell_text(cell, document) for cell in row.cells]
        labels = [cell.paper.label if cell.paper else "" for cell in row.cells]
        shown = [
            f"{ours}; {label} {theirs}" if theirs else ours for (ours, theirs), label in zip(cells, labels, strict=True)
        ]
        rows.append([row.base_model, row.method, seeds[row.base_model, row.method] or "-", *shown])
    return rows


RUN_COLUMNS = (
    *("base model", "method", "training seed", "checkpoint", "responses", "truncated", "prompt too long", "no answer"),
    *("undecided", "samples", "temperature", "top-p", "max new tokens", "sampler", "results"),
)


def run_fields(group: Group, result: EvaluationResult) -> list[str]:
    """One line of the list of runs, as in `RUN_COLUMNS`."""
    options, model = result.manifest["options"], result.manifest["model"]
    counts = [benchmark.counts for benchmark in result.benchmarks.values()]
    responses = sum(count.samples for count in counts)

    def share(number: int) -> str:
        return f"{number} ({percent(number / responses)} %)" if responses else "-"

    step = "" if model["step"] is None else f", step {model['step']}"
    return [
        group.base_model,
        group.method,
        seed_name(result),
        f"{model['checkpoint_rule']}{step if 'by hand' not in model['checkpoint_rule'] else ''}",
        str(responses) if result.finished else "unfinished",
        share(sum(count.truncated for count in counts)),
        share(sum(count.prompt_too_long for count in counts)),
        share(sum(count.no_answer for count in counts)),
        share(sum(count.undecided for count in counts)),
        str(options["n"]),
        f"{options['temperature']:g}",
        f"{options['top_p']:g}",
        str(options["max_new_tokens"]),
        str(result.manifest["sampler"]["name"]),
        result.folder.name,
    ]
