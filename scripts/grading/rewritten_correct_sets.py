r"""Other spellings of keys that are lists, tuples, sets and intervals; as in ``rewritten_correct_forms.py``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from key_shapes import Key, plain_brackets, value_of

Form = Callable[[Key], Iterable[str]]
SPELLINGS_OF_SETS: dict[str, Form] = {}
"""All forms by name, in the order of the table."""


def _form(name: str) -> Callable[[Form], Form]:
    def register(function: Form) -> Form:
        SPELLINGS_OF_SETS[name] = function
        return function

    return register


@_form("a name before a tuple")
def _(key: Key) -> list[str]:
    if key.brackets is None or (key.brackets[0], key.brackets[2]) != ("(", ")") or r"\infty" in key.text:
        return []
    names = ("", "", "(x, y)", "(x, y, z)", "(a, b, c, d)")
    count = len(key.brackets[1])
    letters = re.sub(r"\\[A-Za-z]+", "", key.text)
    if count >= len(names) or re.search(r"[a-z]", letters):
        return []
    return [f"{names[count]} = {key.text}", f"{names[count].replace(' ', '')}={key.text}"]


@_form("list in another order")
def _(key: Key) -> list[str]:
    if not key.items:
        return []
    return [", ".join(reversed(key.items)), ", ".join([*key.items[1:], key.items[0]])]


@_form("and between")
def _(key: Key) -> list[str]:
    if not key.items:
        return []
    first = ", ".join(key.items[:-1])
    return [
        rf"{first} \text{{ and }} {key.items[-1]}",
        rf"{first}, \text{{and }} {key.items[-1]}",
        f"{first} and {key.items[-1]}",
    ]


@_form("list in braces")
def _(key: Key) -> list[str]:
    inside = ", ".join(key.items)
    return [rf"\{{{inside}\}}", rf"\left\{{ {inside} \right\}}", "; ".join(key.items)] if key.items else []


@_form("list with a name")
def _(key: Key) -> list[str]:
    if not key.items or any(value_of(item) is None for item in key.items):
        return []
    return [
        "x = " + ", ".join(key.items),
        ", ".join(f"x = {item}" for item in key.items),
        r" \text{ or } ".join(f"x = {item}" for item in key.items),
        rf"x \in \{{{', '.join(key.items)}\}}",
    ]


@_form("boxes that form the list")
def _(key: Key) -> list[str]:
    """The answer stands in a box, so a closing brace ends that box."""
    return (
        [separator.join(key.items) for separator in (r"}, \boxed{", r"} \text{ and } \boxed{", r"}$ and $\boxed{")]
        if key.items
        else []
    )


@_form("names and values in another order")
def _(key: Key) -> list[str]:
    names = key.named_list
    if not names:
        return []
    backwards = [f"{name}={value}" for name, value in reversed(names)]
    left, right = ", ".join(name for name, _ in names), ", ".join(value for _, value in names)
    cases = r" \\ ".join(f"{name}={value}" for name, value in names)
    return [
        ", ".join(backwards),
        r" \text{ and } ".join(backwards),
        f"({left}) = ({right})",
        rf"\begin{{cases}} {cases} \end{{cases}}",
    ]


@_form("set in another order")
def _(key: Key) -> list[str]:
    if key.braces is None or len(key.braces) < 2:
        return []
    return [r"\{" + ", ".join(reversed(key.braces)) + r"\}", r"\left\{" + ", ".join(key.braces) + r"\right\}"]


@_form("interval as a set")
def _(key: Key) -> list[str]:
    if key.interval is None:
        return []
    left, low, high, right = key.interval
    return [rf"x \in {key.text}", rf"\{{x \mid {_inequality(left, low, high, right)}\}}"]


@_form("interval as an inequality")
def _(key: Key) -> list[str]:
    if key.interval is None:
        return []
    tight = _inequality(*key.interval)
    return (
        [tight, tight.replace(r"\le", r"\leq").replace(r"\ge", r"\geqslant")]
        if tight
        else [r"\mathbb{R}", r"x \in \mathbb{R}"]
    )


def _inequality(left: str, low: str, high: str, right: str) -> str:
    below, above = (r"\le" if left == "[" else "<"), (r"\le" if right == "]" else "<")
    if r"\infty" in low:
        return "" if r"\infty" in high else f"x {above} {high}"
    if r"\infty" in high:
        return f"x {below.replace('<', '>').replace('le', 'ge')} {low}"
    return f"{low} {below} x {above} {high}"


@_form("union in another order")
def _(key: Key) -> list[str]:
    parts = re.split(r"\s*\\cup\s*", key.text)
    return (
        [r" \cup ".join(reversed(parts))]
        if len(parts) > 1 and "=" not in key.text and r"\in" not in key.text.replace(r"\infty", "")
        else []
    )


@_form("plus or minus")
def _(key: Key) -> list[str]:
    values = [value_of(item) for item in key.items]
    if len(values) != 2 or None in values or not values[0] or abs(values[0] + values[1]) > 1e-30:
        return []
    bare = next((item for item in key.items if not item.startswith("-")), None)
    return [rf"\pm {bare}", rf"x = \pm {bare}"] if bare and not re.search(r"[-+]", bare) else []


@_form("interval as two conditions")
def _(key: Key) -> list[str]:
    if key.interval is None or r"\infty" in key.interval[1] + key.interval[2]:
        return []
    left, low, high, right = key.interval
    above, below = (r"\ge" if left == "[" else ">"), (r"\le" if right == "]" else "<")
    return [rf"x {above} {low} \text{{ and }} x {below} {high}", rf"x {below} {high}, x {above} {low}"]


@_form("interval as an absolute value")
def _(key: Key) -> list[str]:
    if key.interval is None or (key.interval[0], key.interval[3]) not in (("(", ")"), ("[", "]")):
        return []
    _, low, high, right = key.interval
    relation = "<" if right == ")" else r"\le"
    return [f"|x| {relation} {high}"] if low.replace(" ", "") == f"-{high}".replace(" ", "") else []


@_form("empty set")
def _(key: Key) -> list[str]:
    if key.text not in (r"\emptyset", r"\varnothing"):
        return []
    return [r"\emptyset", r"\varnothing", r"\{\}", r"\text{no solution}"]


@_form("all real numbers")
def _(key: Key) -> list[str]:
    if plain_brackets(key.text).replace(" ", "") not in (r"(-\infty,\infty)", r"\mathbb{R}"):
        return []
    return [r"\mathbb{R}", r"(-\infty, \infty)", r"\text{all real numbers}", r"x \in \mathbb{R}"]
