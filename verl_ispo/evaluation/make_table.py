"""``verl-ispo table``: from result folders to Markdown, CSV and LaTeX files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.evaluation.audit_draw import AUDIT_CSV, DEFAULT_NUMBER, DEFAULT_SEED, draw_audit, results_digests
from verl_ispo.evaluation.audit_rates import audit_remarks
from verl_ispo.evaluation.cost import cost_parts
from verl_ispo.evaluation.document import TableDocument, build_document
from verl_ispo.evaluation.document_part import DocumentPart
from verl_ispo.evaluation.layout_csv import format_comparisons_csv, format_part_csv, format_scores_csv
from verl_ispo.evaluation.layout_latex import format_latex
from verl_ispo.evaluation.layout_markdown import format_markdown
from verl_ispo.evaluation.manifest import PARTIAL_PROMPTS
from verl_ispo.evaluation.metrics import parse_metric
from verl_ispo.evaluation.pass_curves import THRESHOLDS, curve_parts
from verl_ispo.evaluation.reference_figures import read_reference, reference_remarks
from verl_ispo.evaluation.results import EvaluationResult, load_result
from verl_ispo.evaluation.sensitivity import load_sensitivity, sensitivity_parts
from verl_ispo.evaluation.table import table_benchmarks
from verl_ispo.user_error import UserError

SaveCharts = Callable[[DocumentPart, Path], None]
"""Draws a part's charts into a PNG; given from above, where the charts are drawn."""


@dataclass(frozen=True)
class TableOptions:
    """The options of ``verl-ispo table``; its ``--help`` says what each is."""

    results: tuple[Path, ...]
    out: Path
    formats: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str | None
    paper_rows: str
    reference: Path | None = None
    audit: bool = False
    audit_samples: int = DEFAULT_NUMBER
    audit_seed: int = DEFAULT_SEED
    curves: bool = False
    thresholds: tuple[float, ...] = THRESHOLDS
    cost: bool = False
    sensitivity: tuple[Path, ...] = ()


def run(options: TableOptions, save_charts: SaveCharts | None = None) -> int:
    """The command; returns its exit status: 0, or 2 for a fault that the user can correct."""

    def work() -> None:
        if options.audit_samples < 2 or options.audit_seed < 0:
            raise UserError(
                f"--audit-samples {options.audit_samples}, --audit-seed {options.audit_seed}: give 2 or more samples "
                "and a seed of 0 or more"
            )
        results = [load_result(folder) for folder in options.results]
        for result in results:
            if PARTIAL_PROMPTS in result.manifest["options"]:
                raise UserError(
                    f"{result.folder}: verl-ispo contamination wrote it, about cut questions; its scores are in "
                    "contamination.md there, so leave it out"
                )
        document = _document(options, results)
        audited = draw_audit(options.out, results, options.audit_samples, options.audit_seed) if options.audit else ""
        if results and (options.out / AUDIT_CSV).exists():
            remarks = audit_remarks(options.out, results_digests(results))
            document = replace(document, remarks=(*document.remarks, *remarks))
        document = replace(document, parts=_parts(options, document))
        texts = {}
        markdown = format_markdown(document)
        if "md" in options.formats:
            texts["table.md"] = markdown
        if "csv" in options.formats:
            if document.tables:
                texts["scores.csv"] = format_scores_csv(document)
                texts["comparisons.csv"] = format_comparisons_csv(document)
            texts |= {f"{part.name}.csv": format_part_csv(part) for part in document.parts}
        if "latex" in options.formats:
            texts["table.tex"] = format_latex(document)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                write_text(options.out / name, text)
            drawn = _save_pictures(options, document, save_charts)
        except OSError as error:
            raise UserError(f"--out {options.out}: {error}") from error
        print(markdown)
        print("Written: " + ", ".join(str(options.out / name) for name in [*texts, *drawn]))
        if audited:
            print(audited)

    return run_command("verl-ispo table", work)


def _document(options: TableOptions, results: Sequence[EvaluationResult]) -> TableDocument:
    """The scores, with the figures of a reference beside them; without results only tables on request follow."""
    metrics = [parse_metric(text) for text in options.metrics]
    if not results and options.sensitivity:
        if options.curves or options.cost or options.audit or options.reference is not None:
            raise UserError(
                "--curves, --cost, --audit and --reference are about RESULTS: give folders that verl-ispo eval has "
                "written"
            )
        return TableDocument((), None, (), (), (), ())
    reference = read_reference(options.reference) if options.reference is not None else ()
    document = build_document(results, metrics, options.baseline, options.paper_rows, reference)
    if options.reference is None:
        return document
    shown = [cell.paper for table in document.tables for row in table.rows for cell in row.cells if cell.paper]
    remarks = reference_remarks(options.reference, reference, [figure for figure in shown if figure in reference])
    return replace(document, remarks=(*document.remarks, *remarks))


def _parts(options: TableOptions, document: TableDocument) -> tuple[DocumentPart, ...]:
    """The tables that were asked for."""
    if any(not 0.0 < tau <= 1.0 for tau in options.thresholds):
        raise UserError(f"--thresholds {' '.join(map(str, options.thresholds))}: give shares above 0 and up to 1")
    groups = [group for group in document.groups if group.results]
    benchmarks = table_benchmarks(document.groups)
    parts: list[DocumentPart] = []
    if options.curves:
        parts += curve_parts(groups, benchmarks, options.thresholds)
    if options.cost:
        parts += cost_parts(groups, benchmarks)
    if options.sensitivity:
        parts += sensitivity_parts([load_sensitivity(folder) for folder in options.sensitivity])
    return tuple(parts)


def _save_pictures(options: TableOptions, document: TableDocument, save_charts: SaveCharts | None) -> list[str]:
    """Draw what has charts; returns the files' names."""
    drawn = []
    for part in document.parts:
        if "png" in options.formats and save_charts is not None and any(chart.curves for chart in part.charts):
            try:
                save_charts(part, options.out / f"{part.name}.png")
            except ModuleNotFoundError as error:
                print(f"{part.name}.png is left out, as it needs {error.name}: pip install 'verl_ispo[plot]'")
                break
            drawn.append(f"{part.name}.png")
    return drawn
