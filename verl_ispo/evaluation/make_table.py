"""``verl-ispo table``: from result folders to Markdown, CSV and LaTeX files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.evaluation.audit_draw import AUDIT_CSV, DEFAULT_NUMBER, DEFAULT_SEED, draw_audit, results_digests
from verl_ispo.evaluation.audit_rates import audit_remarks
from verl_ispo.evaluation.document import build_document
from verl_ispo.evaluation.layout_csv import format_comparisons_csv, format_scores_csv
from verl_ispo.evaluation.layout_latex import format_latex
from verl_ispo.evaluation.layout_markdown import format_markdown
from verl_ispo.evaluation.manifest import PARTIAL_PROMPTS
from verl_ispo.evaluation.metrics import parse_metric
from verl_ispo.evaluation.reference_figures import read_reference, reference_remarks
from verl_ispo.evaluation.results import load_result
from verl_ispo.user_error import UserError


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


def run(options: TableOptions) -> int:
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
        metrics = [parse_metric(text) for text in options.metrics]
        reference = read_reference(options.reference) if options.reference is not None else ()
        document = build_document(results, metrics, options.baseline, options.paper_rows, reference)
        if options.reference is not None:
            shown = [cell.paper for table in document.tables for row in table.rows for cell in row.cells if cell.paper]
            remarks = reference_remarks(
                options.reference, reference, [figure for figure in shown if figure in reference]
            )
            document = replace(document, remarks=(*document.remarks, *remarks))
        audited = draw_audit(options.out, results, options.audit_samples, options.audit_seed) if options.audit else ""
        if (options.out / AUDIT_CSV).exists():
            remarks = audit_remarks(options.out, results_digests(results))
            document = replace(document, remarks=(*document.remarks, *remarks))
        texts = {}
        markdown = format_markdown(document)
        if "md" in options.formats:
            texts["table.md"] = markdown
        if "csv" in options.formats:
            texts["scores.csv"] = format_scores_csv(document)
            texts["comparisons.csv"] = format_comparisons_csv(document)
        if "latex" in options.formats:
            texts["table.tex"] = format_latex(document)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                write_text(options.out / name, text)
        except OSError as error:
            raise UserError(f"--out {options.out}: {error}") from error
        print(markdown)
        print("Written: " + ", ".join(str(options.out / name) for name in texts))
        if audited:
            print(audited)

    return run_command("verl-ispo table", work)
