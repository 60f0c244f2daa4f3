"""The paper's figure 6 as a block of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verl_ispo.report.chart_panels import Drawing, FigureBlock, Panel, Series, overlay
from verl_ispo.report.loaded_run import Run
from verl_ispo.report.solved_later import SolvedLater, default_early_steps, solved_later
from verl_ispo.runs.rollout_dump.reader import PromptOutcome

TITLE = "Failed early, solved by this step"
NEED = "per-prompt outcomes, which need trainer.v1.ispo.dump_dir"


def figure_six(
    drawing: Drawing, outcomes: Mapping[str, Sequence[PromptOutcome]], early_steps: int | None
) -> FigureBlock:
    """Share of the prompts that failed early and were solved later, one line per run.

    Args:
        drawing (`Drawing`).
        outcomes (`Mapping`): run name to its outcomes; a run without a dump has none.
        early_steps (`int`, *optional*): last step that counts as early; a quarter of each run's steps by default.
    """
    fates = {
        name: solved_later(found, early_steps or default_early_steps(found))
        for name, found in outcomes.items()
        if found
    }

    def series(run: Run) -> Series:
        fate = fates.get(run.name)
        return (fate.steps, fate.share) if fate else ([], [])

    panel = overlay(drawing, TITLE, "share of prompts", series, _missing(drawing, fates), percent=True)
    rows = [_in_words(run.name, fates.get(run.name)) for run in drawing.runs]
    header = ["run", "early: up to step", "failed early", "drawn again", "solved later"]
    counts = Panel("In numbers", None, "", header, rows)
    return FigureBlock(
        "solved-later",
        "Prompts that failed early and were solved later",
        "figure 6",
        "Of the prompts whose first group was all wrong, and which were drawn again, the share with at least one "
        "correct rollout since. Some of it is luck (a prompt with one chance in twenty is all wrong in two of three "
        "groups of 8), so compare runs on the same data and do not read the level itself.",
        drawing.run_legend(),
        [[panel, counts]],
    )


def _missing(drawing: Drawing, fates: Mapping[str, SolvedLater]) -> str:
    reasons = []
    if any(run.name not in fates for run in drawing.runs):
        reasons.append(NEED)
    if any(fate.failed_early and not fate.drawn_again for fate in fates.values()):
        reasons.append("a prompt that failed early and was drawn again; that takes more than one pass over the data")
    if any(not fate.failed_early for fate in fates.values()):
        reasons.append("a prompt that failed early")
    return ", or ".join(reasons)


def _in_words(name: str, fate: SolvedLater | None) -> list[str]:
    if fate is None:
        return [name, *["–"] * 4]
    solved = f"{fate.solved} of {fate.drawn_again}" if fate.drawn_again else "–"
    return [name, str(fate.early_steps), str(fate.failed_early), str(fate.drawn_again), solved]
