r"""Turns a question into chat messages, and a prompt in DAPO's wrapping back into the question.

Three templates have names; any other is a Jinja file. Training and evaluation should share one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_prep.sources import file_sha256
from verl_ispo.answers.answer_place import BOXED, asked_markers
from verl_ispo.user_error import UserError

# The system prompt of Qwen2.5-Math's own chat template.
QWEN_MATH_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."

DAPO_PREFIX = (
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
DAPO_SUFFIX = '\n\nRemember to put your answer on its own line after "Answer:".'
# A widespread copy of the data set asks for a box in the last line.
DAPO_BOXED_PREFIX = DAPO_PREFIX.replace("$Answer (without quotes)", r"\boxed{$Answer}")

Message = dict[str, str]

# A question that asks for no form of answer, to see what a template makes of it.
_PROBE = "What is 6 times 7?"


@dataclass(frozen=True)
class PromptTemplate:
    """A named way from a question to chat messages.

    Attributes:
        name (`str`): ``qwen_math``, ``dapo``, ``plain``, or the name of a Jinja file.
        render (`Callable[[str], list[dict[str, str]]]`): question to messages with the keys ``role`` and ``content``.
        sha256 (`str` or `None`): of the Jinja file.
        shots (`int`): worked examples before the question.
        shots_sha256 (`str` or `None`): of their file.
    """

    name: str
    render: Callable[[str], list[Message]]
    sha256: str | None = None
    shots: int = 0
    shots_sha256: str | None = None

    @property
    def answer_format(self) -> str:
        """``"boxed"`` where the template asks for a box and for nothing else, else ``"auto"``."""
        text = "\n".join(message["content"] for message in self.render(_PROBE))
        return BOXED.name if asked_markers(text) == {BOXED} else "auto"


def _qwen_math(question: str) -> list[Message]:
    return [{"role": "system", "content": QWEN_MATH_SYSTEM}, {"role": "user", "content": question}]


def _dapo(question: str) -> list[Message]:
    return [{"role": "user", "content": wrap_dapo(question)}]


def _plain(question: str) -> list[Message]:
    return [{"role": "user", "content": question}]


NAMED_TEMPLATES = {"qwen_math": _qwen_math, "dapo": _dapo, "plain": _plain}


def wrap_dapo(question: str) -> str:
    """The question between DAPO's instruction and its reminder."""
    return DAPO_PREFIX + question + DAPO_SUFFIX


def unwrap_dapo(prompt: str) -> tuple[str, bool]:
    """The question inside DAPO's wrapping and `True`; a prompt that is not wrapped is returned unchanged, with `False`.

    The wrapping is removed once and exactly, so that ``unwrap_dapo(wrap_dapo(q)) == (q, True)`` for every `q`.
    """
    for prefix in (DAPO_PREFIX, DAPO_BOXED_PREFIX):
        if prompt.startswith(prefix) and prompt.endswith(DAPO_SUFFIX) and len(prompt) >= len(prefix) + len(DAPO_SUFFIX):
            return prompt[len(prefix) : -len(DAPO_SUFFIX)], True
    return prompt, False


def load_template(name: str) -> PromptTemplate:
    """The template `name`, or the one in the Jinja file of that path.

    The file's text, rendered with ``question``, becomes the user message. If the file has a block ``user``, only that
    block does, and a block ``system`` becomes a system message before it.

    Raises:
        UserError: if there is no such template, or the file does not render the question.
    """
    if name in NAMED_TEMPLATES:
        return PromptTemplate(name, NAMED_TEMPLATES[name])
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"--template {name}: neither a Jinja file nor one of {', '.join(NAMED_TEMPLATES)}")
    return PromptTemplate(path.name, _jinja_renderer(path), file_sha256(path))


def _jinja_renderer(path: Path) -> Callable[[str], list[Message]]:
    import jinja2
    import jinja2.sandbox

    environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    try:
        template = environment.from_string(path.read_text(encoding="utf-8"))
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"--template {path}, line {error.lineno}: {error.message}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--template {path}: not UTF-8") from error

    def block(name: str, question: str) -> str:
        return "".join(template.blocks[name](template.new_context({"question": question}))).strip()

    def render(question: str) -> list[Message]:
        if "user" not in template.blocks:
            return [{"role": "user", "content": template.render(question=question).strip()}]
        system = [{"role": "system", "content": block("system", question)}] if "system" in template.blocks else []
        return [*system, {"role": "user", "content": block("user", question)}]

    try:
        messages = render(_PROBE)
    except jinja2.TemplateError as error:
        raise UserError(f"--template {path}: {error}; the only variable is {{{{ question }}}}") from error
    if not any(_PROBE in message["content"] for message in messages):
        raise UserError(
            f"--template {path}: the prompt does not contain the question; write {{{{ question }}}} into the file"
        )
    return render
