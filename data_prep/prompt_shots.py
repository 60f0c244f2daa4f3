"""Worked examples before the question, as turns of the chat: what a base or small model needs to answer in a form."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from data_prep.prompt_templates import Message, PromptTemplate
from data_prep.sources import file_sha256
from verl_ispo.answers.answer_place import find_answer
from verl_ispo.user_error import UserError


@dataclass(frozen=True)
class Shot:
    """A question and the response that a model is to give to it."""

    question: str
    response: str


def read_shots(path: Path) -> list[Shot]:
    """Read a JSON Lines file with the keys ``question`` and ``response``.

    Raises:
        UserError: naming the line that is no example, or whose response gives no answer.
    """
    if not path.is_file():
        raise UserError(f"--shots {path}: no such file; give JSON Lines with the keys question and response")
    shots = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"--shots {path}: not UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"--shots {path}, line {number}"
        try:
            record = json.loads(line)
            shot = Shot(record["question"], record["response"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{where}: not a JSON object with the keys question and response ({error})") from error
        if not all(isinstance(text, str) and text.strip() for text in (shot.question, shot.response)):
            raise UserError(f"{where}: question and response have to be text, not blank")
        if find_answer(shot.response) is None:
            raise UserError(f"{where}: its response gives no answer, so it would teach to give none: {line:.200}")
        shots.append(shot)
    if not shots:
        raise UserError(f"--shots {path}: no example in it")
    return shots


def with_shots(template: PromptTemplate, path: Path) -> PromptTemplate:
    """The template with a file's examples as turns between its system prompt and the question.

    Each example's question is rendered as the template renders any, and its response is the assistant's turn.

    Raises:
        UserError: see `read_shots`; and by the template, for a problem that is one of the examples.
    """
    shots = read_shots(path)
    known = {shot.question.strip() for shot in shots}

    def turns(question: str) -> tuple[list[Message], list[Message]]:
        messages = template.render(question)
        system = [message for message in messages if message["role"] == "system"]
        return system, [message for message in messages if message["role"] != "system"]

    def render(question: str) -> list[Message]:
        if question.strip() in known:
            raise UserError(
                f"--shots {path}: this problem is one of its examples, so its prompt would hold the solution: "
                f"{question:.200}"
            )
        system, asked = turns(question)
        shown = [
            message
            for shot in shots
            for message in (*turns(shot.question)[1], {"role": "assistant", "content": shot.response})
        ]
        return [*system, *shown, *asked]

    return dataclasses.replace(template, render=render, shots=len(shots), shots_sha256=file_sha256(path))
