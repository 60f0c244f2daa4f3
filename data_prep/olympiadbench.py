"""OlympiadBench (arXiv 2402.14008): the English, text-only, open-ended mathematics problems.

The literature evaluates 675 of them (Qwen2.5-Math's copy, on the hub as math-ai/olympiadbench); the authors' own hub
copy, Hothan/OlympiadBench, configuration OE_TO_maths_en_COMP, has 674. The full set works too: rows of other
languages, subjects, modalities and question types are left out where the columns name them.
"""

from __future__ import annotations

from dataclasses import replace

from data_prep.answer_kinds import ground_truth, split_answers
from data_prep.benchmark_set import Benchmark, Extras
from data_prep.preparation_command import run_benchmark
from data_prep.schema import Problem
from verl_ispo.answers.ground_truth import GroundTruth

_WANTED = {
    "language": ("english", "en"),
    "subject": ("math", "maths", "mathematics"),
    "modality": ("text-only", "text"),
    "question_type": ("open-ended", "oe"),
}


def is_wanted(extras: Extras) -> bool:
    """Whether no column says that the row belongs to another part of OlympiadBench."""
    return all(str(extras.get(name) or wanted[0]).lower() in wanted for name, wanted in _WANTED.items())


def olympiad_truth(answers: list[str], extras: Extras) -> GroundTruth:
    """Ground truth with OlympiadBench's multiple answers, unit and tolerance (its column ``error``)."""
    several = str(extras.get("is_multiple_answer")).lower() == "true"
    if several:
        answers = [part for answer in answers for part in split_answers(answer)]
    return ground_truth(
        answers,
        several=several,
        published_type=str(extras.get("answer_type") or ""),
        unit=str(extras.get("unit") or "").strip(),
        tolerance=str(extras.get("error") or "").strip(),
    )


# Row 97 of the hub copy: the published key has a stray letter in front of the interval.
_MISPRINTED, _INTERVAL = "t(0,4]", "(0,4]"


def corrected_key(problem: Problem) -> tuple[Problem, str]:
    """The one misprinted key, repaired: the values that t may take are the interval (0, 4]."""
    if problem.truth.text.replace(" ", "").strip("$") != _MISPRINTED:
        return problem, ""
    corrected = replace(problem, truth=replace(problem.truth, text=_INTERVAL, answer_type="interval"))
    return corrected, f"The published key {_MISPRINTED} is a misprint and was corrected to {_INTERVAL}."


BENCHMARK = Benchmark(
    name="olympiadbench",
    title="OlympiadBench, English text-only open-ended mathematics",
    hub_id="math-ai/olympiadbench",
    expected_count=675,
    extra_columns=("is_multiple_answer", "answer_type", "unit", "error", *_WANTED),
    keep=is_wanted,
    truth=olympiad_truth,
    adjust=corrected_key,
)

if __name__ == "__main__":
    raise SystemExit(run_benchmark(BENCHMARK))
