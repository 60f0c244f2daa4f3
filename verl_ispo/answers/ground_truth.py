"""What is known about a problem's correct answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroundTruth:
    """A ground truth: as published where the data preparation writes it, normalized where the grader has read it.

    Attributes:
        text (`str`): the answer. Several answers are a JSON list of strings as published, and joined by commas once
            the grader has read them.
        multiple_answers (`bool`, *optional*, defaults to `False`): the problem has several answers, in any order, and
            a response has to give all of them.
        unit (`str`, *optional*, defaults to `""`): unit of an answer that states none.
        tolerance (`str`, *optional*, defaults to `""`): largest accepted absolute error, such as ``"1e-1"``, or as
            published, such as ``"1e-1,1e-2"``; empty where the answer is exact.
        log_base (`str`, *optional*, defaults to `"e"`): what the data set means by a bare ``\\log``: the natural one,
            or its base as a whole number such as ``"10"``.
        answer_type (`str`, *optional*, defaults to `""`): integer, decimal, fraction, percentage, expression, equation,
            tuple, interval, set, matrix, choice, boolean, text, or mixed for several answers of different kinds. The
            grader does not read it.
    """

    text: str
    multiple_answers: bool = False
    unit: str = ""
    tolerance: str = ""
    answer_type: str = ""
    log_base: str = "e"
