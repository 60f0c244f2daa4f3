"""``verl-ispo contamination``: whether a base model knows a benchmark, asked with the beginnings of its questions.

Each question is cut (`partial_prompts`), the beginning is sampled greedily without a chat template, and the response is
compared with the rest of the question and graded. Sampling, grading, resuming and the manifest are those of ``verl-ispo
eval``. A benchmark is compared with those that are later than the model's data: what a model does there it does without
having read them. Benchmarks also differ in difficulty, which moves the answers; the exact completions are the sign of
contamination, the answers say what it is worth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from data_prep.benchmark_names import LATER_BENCHMARKS
from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.layout_markdown import markdown_table
from verl_ispo.evaluation.layout_text import interval_text, p_text, percent, signed_points
from verl_ispo.evaluation.manifest import PARTIAL_PROMPTS
from verl_ispo.evaluation.paper_results import canonical
from verl_ispo.evaluation.partial_prompts import LEAST_WORDS, CutQuestion, completes, cut_questions, rouge_l
from verl_ispo.evaluation.questions import read_questions
from verl_ispo.evaluation.results import SAMPLES_NAME
from verl_ispo.evaluation.run import evaluate_questions
from verl_ispo.evaluation.samples import read_samples
from verl_ispo.evaluation.statistics import CONFIDENCE_LEVEL, Interval, Scores, holm, mean_interval
from verl_ispo.user_error import UserError

PERCENTS = (40, 60, 80)
MEASURES = {
    "exact": "rest of the question, exact",
    "rouge_l": "rest of the question, ROUGE-L",
    "answer": "answer correct",
}
_COMPARED = ("exact", "answer")
_READING = (
    "A model was given the beginning of each question, greedily and without a chat template (arXiv 2507.10532). Scores "
    "are percentages of the questions, in brackets the 95 % interval over questions (bootstrap, BCa; exact binomial "
    "where all are 0 or all are 1); n is the number of questions."
)
_COMPARING = (
    "Differences in points between questions of a benchmark and all questions of the later ones ({later}), with "
    "Newcombe's interval for two independent shares; p is Fisher's exact test, with Holm's correction over all lines. "
    "The later benchmarks may be harder or easier: completions are what shows that questions were read before."
)


@dataclass(frozen=True)
class ContaminationOptions:
    """The options of ``verl-ispo contamination``; its ``--help`` says what each is.

    Attributes:
        evaluation (`EvaluationOptions`): what samples and grades; greedy only, without a chat template.
        percents (`tuple[int, ...]`): shares of the questions that are given.
        later (`tuple[str, ...]`): benchmarks after the model's data; the known ones where it is empty.
    """

    evaluation: EvaluationOptions
    percents: tuple[int, ...] = PERCENTS
    later: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One benchmark at one share.

    Attributes:
        benchmark (`str`), percent (`int`): which.
        scores (`Mapping[str, Scores]`): by the names of `MEASURES`, one score in [0, 1] for each question.
        truncated (`int`): responses that the token limit cut off.
    """

    benchmark: str
    percent: int
    scores: Mapping[str, Scores]
    truncated: int


@dataclass(frozen=True)
class Difference:
    """A benchmark against the later ones: one measure at one share; values in [-1, 1]."""

    benchmark: str
    percent: int
    measure: str
    difference: float
    interval: Interval
    p_value: float
    p_holm: float


def run(options: ContaminationOptions) -> int:
    """The command; returns its exit status: 0, 2 for a fault that the user can correct, 130 if interrupted."""

    def work() -> None:
        out = options.evaluation.out
        print(probe(options))
        print(f"Written: {out / 'contamination.md'}, {out / 'contamination.json'}; responses: {out / SAMPLES_NAME}")

    kept = f"interrupted; finished responses are kept in {options.evaluation.out}, and the same command resumes"
    return run_command("verl-ispo contamination", work, kept)


def probe(options: ContaminationOptions) -> str:
    """Sample or resume, write ``contamination.md`` and ``contamination.json``, and return the former.

    Raises:
        UserError: for what the user can correct; what was sampled until then is kept.
    """
    if any(not 1 <= share <= 99 for share in options.percents) or len(set(options.percents)) < len(options.percents):
        raise UserError(
            f"--percent {' '.join(map(str, options.percents))}: give different whole numbers from 1 to 99, the shares "
            "of each question that the model is given"
        )
    questions = read_questions(options.evaluation.benchmarks)
    benchmarks = list(dict.fromkeys(question.benchmark for question in questions))
    later = _later(options, benchmarks)
    cuts = cut_questions(questions, options.percents)
    for name in benchmarks:
        lacking = sum(question.benchmark == name for question in questions) - sum(
            cut.question.benchmark == name and cut.percent == options.percents[0] for cut in cuts
        )
        if lacking:
            print(f"{name}: {lacking} questions of fewer than {LEAST_WORDS} words are left out", flush=True)
    if not cuts:
        raise UserError(f"--benchmarks: no question has {LEAST_WORDS} words or more, so none can be cut")
    settings = {PARTIAL_PROMPTS: list(options.percents)}
    evaluate_questions(options.evaluation, [cut.question for cut in cuts], settings)
    found = findings(cuts, options.evaluation.out)
    differences = compare(found, later)
    text = _markdown(options, found, later, differences)
    write_text(options.evaluation.out / "contamination.md", text)
    write_text(options.evaluation.out / "contamination.json", json.dumps(_json(found, differences), indent=2) + "\n")
    return text


def findings(cuts: Sequence[CutQuestion], folder: Path) -> list[Finding]:
    """What the samples of a folder say, by benchmark and share, in the order of the questions."""
    by_key = {(cut.question.benchmark, cut.question.question_id): cut for cut in cuts}
    scores: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    truncated: dict[tuple[str, int], int] = {}
    for record in read_samples(folder / SAMPLES_NAME):
        cut = by_key[record["benchmark"], record["question_id"]]
        key = (cut.question.benchmark, cut.percent)
        text = record["text"]
        measured = (float(completes(text, cut.rest)), rouge_l(text, cut.rest), float(record["correct"]))
        scores.setdefault(key, []).append(measured)
        truncated[key] = truncated.get(key, 0) + (record["finish_reason"] == "length")
    return [
        Finding(name, share, dict(zip(MEASURES, np.array(rows).T, strict=True)), truncated[name, share])
        for (name, share), rows in scores.items()
    ]


def compare(found: Sequence[Finding], later: Sequence[str]) -> list[Difference]:
    """Each benchmark that is not later against all questions of the later ones; empty where one of the two lacks."""
    differences = []
    for finding in found:
        others = [other for other in found if other.benchmark in later and other.percent == finding.percent]
        if finding.benchmark in later or not others:
            continue
        for measure in _COMPARED:
            ours = finding.scores[measure]
            theirs = np.concatenate([other.scores[measure] for other in others])
            counts = (int(ours.sum()), ours.size, int(theirs.sum()), theirs.size)
            low, high = confint_proportions_2indep(*counts, method="newcomb", alpha=1 - CONFIDENCE_LEVEL)
            table = [[counts[0], counts[1] - counts[0]], [counts[2], counts[3] - counts[2]]]
            p_value = float(stats.fisher_exact(table).pvalue)
            interval = Interval(float(low), float(high), "newcombe")
            shift = float(ours.mean() - theirs.mean())
            differences.append((finding.benchmark, finding.percent, measure, shift, interval, p_value))
    adjusted = holm([entry[-1] for entry in differences])
    return [Difference(*entry, p_holm=p_holm) for entry, p_holm in zip(differences, adjusted, strict=True)]


def _later(options: ContaminationOptions, benchmarks: Sequence[str]) -> list[str]:
    """The later benchmarks among those that are asked."""
    wanted = {canonical(name) for name in options.later or LATER_BENCHMARKS}
    unknown = [name for name in options.later if canonical(name) not in map(canonical, benchmarks)]
    if unknown:
        raise UserError(f"--later {' '.join(unknown)}: not among the benchmarks ({', '.join(benchmarks)})")
    return [name for name in benchmarks if canonical(name) in wanted]


def _markdown(
    options: ContaminationOptions, found: Sequence[Finding], later: Sequence[str], differences: Sequence[Difference]
) -> str:
    lines = [f"# What {Path(options.evaluation.model).name} knows of the benchmarks", "", _READING, ""]
    rows = [
        [
            finding.benchmark + (" (later)" if finding.benchmark in later else ""),
            f"{finding.percent} %",
            str(finding.scores["answer"].size),
            *(
                f"{percent(float(finding.scores[name].mean()))} {interval_text(mean_interval(finding.scores[name]))}"
                for name in MEASURES
            ),
            str(finding.truncated),
        ]
        for finding in found
    ]
    lines += markdown_table(["benchmark", "given", "n", *MEASURES.values(), "truncated"], rows)
    if differences:
        lines += ["## Against the later benchmarks", "", _COMPARING.format(later=", ".join(later)), ""]
        rows = [
            [
                one.benchmark,
                f"{one.percent} %",
                MEASURES[one.measure],
                signed_points(one.difference),
                interval_text(one.interval, signed=True),
                p_text(one.p_value),
                p_text(one.p_holm),
            ]
            for one in differences
        ]
        lines += markdown_table(["benchmark", "given", "what", "difference", "interval", "p", "p (Holm)"], rows)
    else:
        lines += [
            "No comparison: it takes a benchmark from before the model's data ended and one from after; name the "
            f"latter with --later (known as such: {', '.join(LATER_BENCHMARKS)}).",
            "",
        ]
    return "\n".join(lines)


def _json(found: Sequence[Finding], differences: Sequence[Difference]) -> dict[str, Any]:
    entries = []
    for finding in found:
        intervals = {name: mean_interval(scores) for name, scores in finding.scores.items()}
        entries.append(
            {
                "benchmark": finding.benchmark,
                "percent": finding.percent,
                "problems": finding.scores["answer"].size,
                "truncated": finding.truncated,
                **{
                    name: {
                        "score": float(scores.mean()),
                        "interval_95": None if (one := intervals[name]) is None else [one.low, one.high],
                    }
                    for name, scores in finding.scores.items()
                },
            }
        )
    return {"benchmarks": entries, "against_later": [asdict(one) for one in differences]}
