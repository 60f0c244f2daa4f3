"""Grade one extracted answer against one ground truth: what the caller's process and its workers both run."""

from __future__ import annotations

import re
from dataclasses import replace

from verl_ispo.answers.ground_truth import GroundTruth

from .answer_comparison import compare
from .answer_structure import TooComplex, parse_answer, with_unit
from .approximations import approximation_readings
from .canonical_spelling import same_spelling
from .choice_letters import compare_choices
from .comparison_rules import Rules, SymbolicComparer, Verdict
from .ground_truth_reading import read_tolerance, without_grouping
from .normalization import MAX_ANSWER_CHARS
from .quantifiers import quantified_readings

_BARE_LOG = re.compile(r"\\log(?![A-Za-z])(?!\s*_)\s*")
_COMMON_LOG = re.compile(r"\\lg(?![A-Za-z])\s*")


class AnswerTooLarge(Exception):
    """The answer is longer, deeper or lists more than is graded; only the ground truth's exact text is accepted."""


def check_answer(gold: GroundTruth, answer: str, symbolic: SymbolicComparer | None = None) -> Verdict:
    """Whether an answer is correct; ``None`` where only a worker (``symbolic``) can decide.

    Args:
        gold (`GroundTruth`): From :func:`~verl_ispo.grading.ground_truth_reading.read_ground_truth`.
        answer (`str`): As :func:`~verl_ispo.grading.normalization.normalize_answer` returns it.
        symbolic (`SymbolicComparer`, *optional*): Decides about expressions; without one such pairs stay undecided.

    Raises:
        AnswerTooLarge: if the answer is beyond the bounds on length, depth or items.
    """
    if answer == gold.text:
        return True
    if len(answer) > MAX_ANSWER_CHARS:
        raise AnswerTooLarge(f"the answer has more than {MAX_ANSWER_CHARS} characters")
    if re.search("[A-Za-z]", gold.text) and same_spelling(gold.text, answer):
        return True
    chosen = compare_choices(gold.text, answer)
    if isinstance(chosen, bool):
        return chosen
    pairs = [(gold.text, answer) if chosen is None else chosen]
    pairs = quantified_readings(*pairs[0]) or pairs
    verdicts: list[Verdict] = []
    for gold_text, answer_text in pairs:
        approximate = approximation_readings(answer_text) if r"\approx" in answer_text else None
        for reading in [answer_text] if approximate is None else approximate:
            verdicts.append(_check_reading(replace(gold, text=gold_text), reading, symbolic))
            if verdicts[-1]:
                return True
    return None if None in verdicts else False


def _check_reading(gold: GroundTruth, answer: str, symbolic: SymbolicComparer | None) -> Verdict:
    gold_text, answer = (with_log_base(text, gold.log_base) for text in (gold.text, answer))
    try:
        gold_node = parse_answer(gold_text, several=gold.multiple_answers)
        readings = [parse_answer(answer, several=gold.multiple_answers)]
        if gold.multiple_answers and (ungrouped := without_grouping(answer)) != answer:
            readings.append(parse_answer(ungrouped, several=True))
    except TooComplex as error:
        raise AnswerTooLarge(str(error)) from error
    if gold.unit:
        gold_node = with_unit(gold_node, gold.unit)
    rules = Rules(read_tolerance(gold.tolerance), symbolic, gold.multiple_answers)
    verdicts = [compare(gold_node, reading, rules) for reading in readings]
    if True in verdicts:
        return True
    return None if None in verdicts else False


def with_log_base(text: str, base: str) -> str:
    r"""The text with what its data set means by ``\log`` written out: ``\ln``, or ``\log_{10}``; ``\lg`` is base 10."""
    if r"\l" not in text:
        return text
    text = _COMMON_LOG.sub(r"\\log_{10} ", text)
    return _BARE_LOG.sub(r"\\ln " if base == "e" else rf"\\log_{{{base}}} ", text)
