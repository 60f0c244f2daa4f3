r"""Taking the question out of a prompt: chat markup, DAPO's wrapping, an instruction on the answer's form at the end.

A set that is trained with a template of its own must not carry another instruction in the question: two instructions
may ask for two formats. Only instructions that name a marker of the answer (``\boxed{}``, ``####``, ``<answer>``) at
the very end of the text are taken off; one that says more about the answer than where to put it ("rounded to two
decimals, in \boxed{}") belongs to the problem and stays.
"""

from __future__ import annotations

import re

from data_prep.prompt_templates import unwrap_dapo

DAPO, INSTRUCTION = "dapo", "instruction"

_MAX_INSTRUCTION_CHARS = 320
_USER_TURN = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", re.DOTALL)
_MARKER_SENTENCE = re.compile(
    r"(?:\A|\s)\(?(?:Please|Let's|Let us|Present|Put|Output|Give|Return|Write|Enclose|Place|Provide|Make sure|Remember"
    r"|Your (?:final )?answer|The final answer|Reason|Think)\b[^\n.?!]{0,200}?"
    r"(?:\\boxed|####|</?answer>)(?:\{[^{}\n]{0,40}\})?[^\n.?!]{0,60}[.!]?\)?\Z"
)
_STEPS = re.compile(
    r"(?:\A|\s)(?:Please |Let's |Let us )?(?:[Rr]eason|[Tt]hink|[Ss]olve (?:it|this|the problem)) step[ -]by[ -]step"
    r"[.!]?\Z"
)
_ABOUT_THE_ANSWER = re.compile(
    r"\d|\b(?:round\w*|decimals?|fractions?|simpl\w+|terms|form|modulo|units?|digits?|integers?|exact\w*|sorted|order"
    r"|comma\w*|expressed|interval|letter|option|choice)\b",
    re.IGNORECASE,
)


def question_in_prompt(prompt: str) -> tuple[str, str]:
    """The question that a prompt wraps, without blanks at its ends, and how it was wrapped.

    Returns:
        `(question, wrapping)`: the wrapping is :data:`DAPO`, :data:`INSTRUCTION`, or empty where nothing was taken off.
    """
    turns = _USER_TURN.findall(prompt)
    inner = turns[-1] if turns else prompt
    question, was_wrapped = unwrap_dapo(inner)
    if was_wrapped:
        return question.strip(), DAPO
    question = _without_instruction(inner.strip())
    return question, INSTRUCTION if question != prompt.strip() else ""


def _without_instruction(text: str) -> str:
    start = max(0, len(text) - _MAX_INSTRUCTION_CHARS)
    found = _MARKER_SENTENCE.search(text, start)
    if found is None or found.start() == 0 or _ABOUT_THE_ANSWER.search(found.group()):
        return text
    rest = text[: found.start()].rstrip()
    steps = _STEPS.search(rest, max(0, len(rest) - 80))
    return rest if steps is None or steps.start() == 0 else rest[: steps.start()].rstrip()
