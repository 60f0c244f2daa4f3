r"""An answer key as it is, in other dress and in other places of a response: no mathematics is rewritten here.

A form is a function from a key to answers, none where it does not apply. An answer is what stands in the box; a
:class:`Response` is the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from key_shapes import Key

Form = Callable[[Key], Iterable[str]]
DRESS: dict[str, Form] = {}
"""All forms by name, in the order of the table."""


class Response(str):
    """A whole response, with the answer wherever it is."""


def _wrapped(name: str, *templates: str, only: Callable[[Key], bool] = lambda key: True) -> None:
    """A form that puts the key's text for ``KEY`` in each template."""
    DRESS[name] = lambda key: [type(t)(t.replace("KEY", key.text)) for t in templates] if only(key) else []


def _plain(key: Key) -> bool:
    return "$" not in key.text and not key.listed


def _in_a_line(key: Key) -> bool:
    """Neither a list nor a text whose end is in doubt behind a marker."""
    return _plain(key) and not key.items and not key.text.endswith(".") and "\n" not in key.text


_wrapped("as it is", "KEY")
_wrapped("dollars inside", "$KEY$", r"\(KEY\)", only=_plain)
_wrapped("spaces around", "  KEY ", "KEY\n")
_wrapped("display style", r"\displaystyle KEY", r"\displaystyle{KEY}", only=_plain)
_wrapped("colour", r"\textcolor{red}{KEY}", r"{\color{blue} KEY}", r"\color{red}{KEY}", only=_plain)
_wrapped("size", r"\Large KEY", r"\large{KEY}", r"{\huge KEY}", only=_plain)
_wrapped("underline", r"\underline{KEY}", r"\underline{\underline{KEY}}", only=_plain)
_wrapped("box in the box", r"\boxed{KEY}", r"\fbox{$KEY$}", only=_plain)
_wrapped("therefore", r"\therefore KEY", r"\Rightarrow KEY", r"\implies KEY", "= KEY", only=_plain)
_wrapped("check mark", r"KEY \checkmark", r"KEY \quad \blacksquare", r"KEY \qquad \square", only=_plain)
_wrapped("full stop", "KEY.", r"KEY\,.", only=lambda key: not key.text.endswith("."))
_wrapped("braces", "{KEY}", only=lambda key: _plain(key) and not key.items)
_wrapped("bold text", "**KEY**", only=lambda key: key.scalar or bool(key.boolean or key.choice))
_wrapped("the answer is", r"\text{The answer is }KEY", r"\text{Answer: }KEY", only=_plain)
_wrapped(
    "bold number", r"\mathbf{KEY}", r"\bf KEY", r"\mathrm{KEY}", r"\bm{KEY}", only=lambda key: key.integer is not None
)
_wrapped("word styles", r"\text{KEY}", r"\textbf{KEY}", r"\mathrm{KEY}", "KEY.", r"\textit{KEY}",
         only=lambda key: bool(re.fullmatch(r"[A-Z][a-z]{2,}", key.text)))  # fmt: skip
_wrapped("plus sign", "+KEY", only=lambda key: key.integer is not None and key.integer > 0)
_wrapped("counted things", *(rf"KEY\text{{ {noun}}}" for noun in ("ways", "apples", "solutions", "rectangles")),
         "KEY students", r"\text{KEY ways}",
         only=lambda key: key.integer is not None and key.integer > 1 and not key.has_unit)  # fmt: skip
_wrapped(
    "brackets around",
    "(KEY)",
    r"\left(KEY\right)",
    only=lambda key: key.scalar and not key.has_unit and "," not in key.text,
)
_wrapped("an empty box behind", Response(r"It is \boxed{KEY}. I put it in \boxed{} as asked."), only=_plain)
_wrapped("the same box twice", Response(r"It is \boxed{KEY}. So the answer is $\boxed{KEY}$."), only=_plain)
_wrapped("another answer before", Response("Is it \\boxed{98765}? No, for many good reasons.\n\nIt is \\boxed{KEY}."))
_wrapped(
    "markers",
    *map(Response, ("So it is\n#### KEY", "<answer>KEY</answer>", "<answer> $KEY$ </answer>", "答案是 $KEY$。")),
    *map(Response, ("Answer: $KEY$", "**Answer:** KEY", "**Final Answer**\n\n$KEY$", "The final answer is $KEY$.")),
    Response("Final Answer: The final answer is $KEY$. I hope it is correct."),
    only=_in_a_line,
)
