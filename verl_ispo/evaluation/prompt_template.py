"""Other prompts for the same problems: the bare question of each, in a template of `data_prep.prompt_templates`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from data_prep.prompt_templates import NAMED_TEMPLATES, PromptTemplate
from verl_ispo.evaluation.questions import Question
from verl_ispo.user_error import UserError


def with_template(questions: Sequence[Question], template: PromptTemplate) -> list[Question]:
    """The problems with their prompts made anew; what counts as an answer follows the template, as in data_prep.

    Raises:
        UserError: if a problem has no bare question, from which a prompt could be made.
    """
    found = []
    for question in questions:
        bare = question.extra_info.get("question")
        if not isinstance(bare, str) or not bare.strip():
            raise UserError(
                f"{question.benchmark} {question.question_id}: no extra_info.question, so no other prompt can be made "
                "of it; prepare the file with data_prep, or leave --template and --vary-template out"
            )
        extra_info = {**question.extra_info, "answer_format": template.answer_format}
        messages = tuple(template.render(bare))
        found.append(dataclasses.replace(question, messages=messages, extra_info=extra_info))
    return found


def template_of(questions: Sequence[Question]) -> str | None:
    """Name of the named template that the prompts were made with; `None` for any other."""
    for name, render in NAMED_TEMPLATES.items():
        if all(
            isinstance(bare := question.extra_info.get("question"), str) and list(question.messages) == render(bare)
            for question in questions
        ):
            return name
    return None
