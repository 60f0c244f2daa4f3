r"""Wrong answers made from keys that are lists, tuples, sets and intervals; as in ``rewritten_wrong_forms.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from key_shapes import Key, value_of

Form = Callable[[Key], Iterable[str]]
CHANGED_SETS: dict[str, Form] = {}
"""All forms by name, in the order of the table."""


def _form(name: str) -> Callable[[Form], Form]:
    def register(function: Form) -> Form:
        CHANGED_SETS[name] = function
        return function

    return register


@_form("interval's brackets")
def _(key: Key) -> list[str]:
    if key.interval is None:
        return []
    left, low, high, right = key.interval
    ends = {(other_left, other_right) for other_left in "([" for other_right in ")]"} - {(left, right)}
    if r"\infty" in low:
        ends = {pair for pair in ends if pair[0] == left}
    if r"\infty" in high:
        ends = {pair for pair in ends if pair[1] == right}
    return [f"{other_left}{low}, {high}{other_right}" for other_left, other_right in sorted(ends)]


@_form("interval's ends")
def _(key: Key) -> list[str]:
    if key.interval is None:
        return []
    left, low, high, right = key.interval
    answers = [f"{left}{high}, {low}{right}"]
    answers += [f"{left}{low}+1, {high}{right}"] if r"\infty" not in low else [f"{left}0, {high}{right}"]
    answers += [f"{left}{low}, {high}+1{right}"] if r"\infty" not in high else []
    return answers


@_form("tuple's entries exchanged")
def _(key: Key) -> list[str]:
    if key.brackets is None:
        return []
    left, members, right = key.brackets
    first, last = value_of(members[0]), value_of(members[-1])
    if first is None or last is None or abs(first - last) < 1e-9:
        return []
    return [f"{left}{', '.join([members[-1], *members[1:-1], members[0]])}{right}"]


@_form("tuple's entry changed, missing, repeated")
def _(key: Key) -> list[str]:
    if key.brackets is None or any(value_of(member) is None for member in key.brackets[1]):
        return []
    left, members, right = key.brackets
    changed = [[*members[:-1], f"{members[-1]}+1"], [f"{members[0]}+2", *members[1:]]]
    longer_or_shorter = [[*members, members[-1]], ["0", *members], *([members[1:]] if len(members) > 2 else [])]
    return [f"{left}{', '.join(entries)}{right}" for entries in (*changed, *longer_or_shorter)]


@_form("list with one more")
def _(key: Key) -> list[str]:
    if not key.items or any(value_of(item) is None for item in key.items):
        return []
    return [f"{', '.join(key.items)}, 98765", f"-98765, {', '.join(key.items)}"]


@_form("list with one repeated")
def _(key: Key) -> list[str]:
    if not key.items or any(value_of(item) is None for item in key.items):
        return []
    return [", ".join([key.items[0], *key.items]), ", ".join([*key.items, key.items[-1]])]


@_form("list with one missing")
def _(key: Key) -> list[str]:
    if not key.items:
        return []
    if len(set(key.items)) < len(key.items):
        return []
    return [", ".join(key.items[1:]), ", ".join(key.items[:-1]), key.items[0]]


@_form("list with one changed")
def _(key: Key) -> list[str]:
    if not key.items or any(value_of(item) is None for item in key.items):
        return []
    return [", ".join([*key.items[:-1], f"98765+{key.items[-1]}"]), f"({', '.join(key.items)}, 5)"]


@_form("set changed")
def _(key: Key) -> list[str]:
    if key.braces is None:
        return []
    inside = ", ".join(key.braces)
    smaller = [r"\{" + ", ".join(key.braces[1:]) + r"\}"] if len(set(key.braces)) == len(key.braces) > 1 else []
    return [rf"\{{\{{{inside}\}}\}}", rf"\{{{inside}, 98765\}}", *smaller]


@_form("names and values exchanged")
def _(key: Key) -> list[str]:
    if not key.named_list:
        return []
    names, values = zip(*key.named_list, strict=True)
    turned = [*values[1:], values[0]]
    pairs = ", ".join(f"{name}={value}" for name, value in zip(names, turned, strict=True))
    return [
        pairs,
        ", ".join(turned),
        f"({', '.join(turned)})",
        f"{names[0]}={values[0]}",
        rf"\{{{', '.join(turned)}\}}",
    ]
