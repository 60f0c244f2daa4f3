"""Compare finished or running runs: a table, a few plain sentences computed from it, and a figure of the curves.

    python -m verl_ispo.tiny_task.compare_runs --runs runs/grpo runs/ispo runs/ispo_guarded --out runs

Each run is a folder with the JSON lines of verl's ``file`` logger (``metrics*.jsonl``, one file for each attempt); its
name is the run's name. The text is also written to ``summary.txt``, the figure to ``curves.png``. What a run did not
log is shown as a dash, never as 0.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.runs.metric_log import metric, read_metric_table
from verl_ispo.tiny_task.accuracy import Accuracy, Difference, difference, read_accuracies
from verl_ispo.tiny_task.curves import draw_curves
from verl_ispo.user_error import UserError

GRPO, LITERAL, GUARDED = "GRPO", "ISPO (literal)", "ISPO (guarded)"
LABELS = {"grpo": GRPO, "ispo": LITERAL, "ispo_guarded": GUARDED}
TAIL_STEPS = 10
MISSING = "-"
fill = partial(textwrap.fill, width=110)
NOTABLE_RATE_GAP = 0.05  # a smaller gap between two rates of a few steps is not reported

OUTCOME = "ispo/zero_adv_rate/outcome"
COMPOSITE = "ispo/zero_adv_rate/composite"
CRITICAL_ENTROPY = "ispo/critical_entropy/wrong"
TRACE_DROPPED = "ispo/trace_dropped_rate"
ANSWER_MISSING = "ispo/answer_missing_rate"
STEP_TIME = "timing_s/step"
OLD_LOG_PROB_TIME = "timing_s/old_log_prob"
ABLATED_TIME = "timing_s/ispo_ablated_log_prob"


def run_label(folder: Path) -> str:
    """The name to show: the quickstart's three runs have a fixed name, any other run that of its folder."""
    name = folder.resolve().name
    return LABELS.get(name.lower().replace("-", "_"), name)


def read_runs(folders: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Read runs by label: GRPO, ISPO (literal), ISPO (guarded), then any others as given.

    Raises:
        UserError: if a folder holds no log, or two folders have the same label.
    """
    labels = [run_label(folder) for folder in folders]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"--runs: {', '.join(twice)} is given twice; rename a folder, since its name is the run's name")
    known = list(LABELS.values())
    order = sorted(
        range(len(labels)), key=lambda index: known.index(labels[index]) if labels[index] in known else len(known)
    )
    return {labels[index]: read_metric_table(folders[index]) for index in order}


def tail_mean(run: pd.DataFrame, name: str) -> float:
    """Mean of the last steps that logged a metric; NaN if none did."""
    return float(metric(run, name).tail(TAIL_STEPS).mean())


def head_mean(run: pd.DataFrame, name: str) -> float:
    """Mean of the first steps that logged a metric; NaN if none did."""
    return float(metric(run, name).head(TAIL_STEPS).mean())


def show(value: float, digits: int = 2) -> str:
    """A number for the table; a dash where there is none."""
    return MISSING if math.isnan(value) else f"{value:.{digits}f}"


def accuracy_table(accuracies: Mapping[str, list[Accuracy]]) -> pd.DataFrame:
    """One row per run: accuracy before training and at the last validation, over the levels and by level."""
    rows = []
    for found in accuracies.values():
        if not found:
            rows.append({"step": MISSING, "start": MISSING, "final": MISSING, "s.e.": MISSING})
            continue
        last = found[-1]
        rows.append(
            {
                "step": str(last.step),
                "start": show(found[0].mean, 3) if found[0].step == 0 else MISSING,
                "final": show(last.mean, 3),
                "s.e.": show(last.standard_error, 3),
                **{f"L{level}": show(value) for level, value in last.by_level.items()},
            }
        )
    return pd.DataFrame(rows, index=list(accuracies)).fillna(MISSING)


def signal_table(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per run: ISPO's metrics, mean over all steps and over the last ones."""
    columns = {
        "zero adv. outcome": (OUTCOME, 2),
        "zero adv. composite": (COMPOSITE, 2),
        "crit. entropy wrong": (CRITICAL_ENTROPY, 2),
        "dropped traces": (TRACE_DROPPED, 2),
        "missing answers": (ANSWER_MISSING, 2),
        "step time (s)": (STEP_TIME, 2),
    }
    return pd.DataFrame(
        {
            title: [
                f"{show(float(metric(run, name).mean()), digits)} / {show(tail_mean(run, name), digits)}"
                if not metric(run, name).empty
                else MISSING
                for run in runs.values()
            ]
            for title, (name, digits) in columns.items()
        },
        index=list(runs),
    )


def compare(found: Difference, subject: str, other: str) -> str:
    """One sentence on a difference of accuracies."""
    verdict = "within noise"
    if found.beyond_noise:
        verdict = f"{'higher' if found.value > 0 else 'lower'} by more than noise"
    return f"{subject} against {other}: {found.value:+.3f} (standard error {found.standard_error:.3f}), {verdict}."


def accuracy_sentences(accuracies: Mapping[str, list[Accuracy]]) -> list[str]:
    """What the accuracies say: each run against its own start, then the runs against each other."""
    lines = []
    for label, found in accuracies.items():
        if len(found) > 1:
            lines.append(compare(difference(found[-1], found[0]), f"{label} at step {found[-1].step}", "its start"))
        else:
            lines.append(f"{label} has {len(found)} validation(s) so far, too few to judge its accuracy.")
    for subject, other in ((LITERAL, GRPO), (GUARDED, GRPO), (GUARDED, LITERAL)):
        first, second = accuracies.get(subject), accuracies.get(other)
        if not first or not second:
            continue
        if first[-1].step != second[-1].step:
            lines.append(
                f"{subject} and {other} were last validated at steps {first[-1].step} and {second[-1].step}; "
                "not compared."
            )
        else:
            lines.append(compare(difference(first[-1], second[-1]), subject, other))
    return lines


def zero_advantage_sentences(runs: Mapping[str, pd.DataFrame]) -> list[str]:
    """Whether the reward trained on gave groups an advantage whose outcomes were all equal."""
    lines = []
    for label, run in runs.items():
        if OUTCOME not in run or COMPOSITE not in run:
            continue
        both = run[[OUTCOME, COMPOSITE]].dropna()
        collapsed = both[both[OUTCOME] > 0]
        if collapsed.empty:
            continue
        none_left = int((collapsed[COMPOSITE] == 0).sum())
        lines.append(
            f"{label}: in {len(collapsed)} of {len(both)} steps at least one group's outcomes were all equal. In "
            f"those steps the share of groups without an advantage was {collapsed[OUTCOME].mean():.3f} by outcome and "
            f"{collapsed[COMPOSITE].mean():.3f} by the reward trained on; the latter was 0 in {none_left} steps and at "
            f"most {collapsed[COMPOSITE].max():.2f}."
        )
    return lines


def hazard_sentences(runs: Mapping[str, pd.DataFrame]) -> list[str]:
    """Whether the runs kept their traces and their answers, and how large the IFD was."""
    lines = []
    for name, what in ((TRACE_DROPPED, "answers without a trace"), (ANSWER_MISSING, "responses without an answer")):
        changes = [
            f"{label} {head_mean(run, name):.2f} to {tail_mean(run, name):.2f}"
            for label, run in runs.items()
            if not metric(run, name).empty
        ]
        if changes:
            lines.append(
                f"Share of {what}, from the first {TAIL_STEPS} steps to the last {TAIL_STEPS}: {', '.join(changes)}."
            )
    means = []
    for label, run in runs.items():
        correct, incorrect = (head_mean(run, f"ispo/ifd/{outcome}/mean") for outcome in ("correct", "wrong"))
        if not math.isnan(correct + incorrect):
            means.append(f"{label} {correct:.2f} for correct and {incorrect:.2f} for incorrect rollouts")
    if means:
        lines.append(
            "Mean IFD (how much the trace raises the answer's log-probability, in nats per token) in the first "
            f"{TAIL_STEPS} steps: {'; '.join(means)}."
        )
    return lines


def lesson(runs: Mapping[str, pd.DataFrame], accuracies: Mapping[str, list[Accuracy]]) -> str:
    """The hazard in a few sentences, and whether these runs showed it."""
    if not {LITERAL, GRPO} <= set(runs):
        return CAVEAT
    signs = []
    literal, grpo = accuracies[LITERAL], accuracies[GRPO]
    gaps = [tail_mean(runs[LITERAL], name) - tail_mean(runs[GRPO], name) for name in (TRACE_DROPPED, ANSWER_MISSING)]
    if any(map(math.isnan, gaps)) or not literal or not grpo or literal[-1].step != grpo[-1].step:
        return f"{HAZARD} Whether this happened here cannot be said: a metric or a validation is missing.\n{CAVEAT}"
    for gap, what in zip(gaps, ("more answers without a trace", "more missing answers"), strict=True):
        if gap >= NOTABLE_RATE_GAP:
            signs.append(f"{what} ({gap:+.2f} over the last {TAIL_STEPS} steps)")
    found = difference(literal[-1], grpo[-1])
    if found.beyond_noise and found.value < 0:
        signs.append(f"lower accuracy ({found.value:+.3f})")
    verdict = (
        f"This happened here: compared with GRPO, {LITERAL} ended with {' and '.join(signs)}."
        if signs
        else f"This did not happen here: compared with GRPO, {LITERAL} ended with neither fewer traces or answers, nor "
        "an accuracy lower by more than noise."
    )
    return f"{HAZARD} {verdict}\n{CAVEAT}"


SIGNAL_LEGEND = (
    "zero adv.: share of groups without an advantage, from which nothing is learned, by outcome alone and by the "
    "reward trained on (composite)",
    "crit. entropy wrong: mean entropy at the critical tokens of incorrect rollouts, in nats",
    "dropped traces: share of answers with next to no trace; missing answers: share of responses without an answer",
)
HAZARD = (
    "A first lesson about the method. ISPO rewards an incorrect rollout if its answer does not depend on its trace. In "
    "a tiny, warm-started model the answer depends strongly on the trace from the start, so in a group without a "
    "correct rollout this reward can teach the model to stop reasoning, or to stop answering. ISPO (literal) is the "
    "method as published; ISPO (guarded) adds the guard that docs/tiny_study.md chose."
)
CAVEAT = (
    "One run of each method, and a model of 0.7 M parameters: this shows that the code works and which numbers to "
    "watch. It does not show which method is better on a large model."
)


def cost_sentences(runs: Mapping[str, pd.DataFrame]) -> list[str]:
    """The time of the extra forward pass beside that of the old log-probs."""
    times = []
    for label, run in runs.items():
        # verl's timer of the old log-probs includes the trace-ablated pass
        extra, old = (float(metric(run, name).median()) for name in (ABLATED_TIME, OLD_LOG_PROB_TIME))
        if not math.isnan(extra + old):
            times.append(f"{label} {extra:.3f} s and {old - extra:.3f} s")
    what = "Median time per step of ISPO's extra forward pass (trace ablated) and of the old log-probs"
    return [f"{what}: {'; '.join(times)}."] if times else []


def describe(runs: Mapping[str, pd.DataFrame], problems_per_level: int) -> str:
    """The whole text: two tables, and what they show.

    Args:
        runs (`Mapping[str, pd.DataFrame]`): from `read_runs`.
        problems_per_level (`int`): held-out problems of each level.
    """
    accuracies = {label: read_accuracies(run, problems_per_level) for label, run in runs.items()}
    parts = [
        "Greedy accuracy on held-out problems: mean over the levels, then each level (L1 is the easiest)",
        accuracy_table(accuracies).to_string(),
    ]
    some = next((found[-1] for found in accuracies.values() if found), None)
    if some is not None:
        half = Accuracy(0, {"half": problems_per_level // 2}, problems_per_level).interval("half")
        none = Accuracy(0, {"none": 0}, problems_per_level).interval("none")
        notes = (
            "start: before training; final: last validation; s.e.: standard error of final.",
            f"{some.total_problems} problems, {problems_per_level} per level: a level's 0.50 can stand for "
            f"{half[0]:.2f} to {half[1]:.2f}, and its 0.00 for up to {none[1]:.2f} (95 % Wilson interval).",
            "Standard errors of differences below treat the two scores as independent. They are on the same problems, "
            "so this usually overstates the error.",
        )
        parts += map(fill, notes)
    findings = [
        *accuracy_sentences(accuracies),
        *zero_advantage_sentences(runs),
        *hazard_sentences(runs),
        *cost_sentences(runs),
    ]
    parts += [
        f"\nSignals, mean over all steps / over the last {TAIL_STEPS}",
        signal_table(runs).to_string(),
        *map(fill, SIGNAL_LEGEND),
        "\nWhat these runs show",
        *(fill(line, initial_indent="- ", subsequent_indent="  ") for line in findings),
        "",
        *(fill(line) for line in lesson(runs, accuracies).splitlines()),
    ]
    return "\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m verl_ispo.tiny_task.compare_runs",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders that hold metrics*.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for summary.txt and curves.png")
    parser.add_argument(
        "--held-out-per-level", type=int, default=50, help="the number given to make_data (default: %(default)s)"
    )
    args = parser.parse_args(argv)

    def work() -> None:
        if args.held_out_per_level < 1:
            raise UserError(f"--held-out-per-level {args.held_out_per_level}: give 1 or more")
        runs = read_runs(args.runs)
        text = describe(runs, args.held_out_per_level)
        write_text(args.out / "summary.txt", text)
        draw_curves(runs, args.held_out_per_level, args.out / "curves.png")
        print(text)
        print(f"Curves: {args.out / 'curves.png'}")

    return run_command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
