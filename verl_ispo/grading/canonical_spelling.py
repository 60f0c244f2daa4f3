r"""One sequence of tokens for all LaTeX that prints alike: an exact comparison that needs no parser.

A symbolic parser does not know ``\mathbb{Z}_8``, ``A^T`` or ``p \equiv 1 \pmod 4``, and yet an answer that writes the
same symbols in the same order is the same answer. Here braces around one token, blanks, synonyms of commands, the order
of ``_`` and ``^``, and the brackets of ``\max`` do not count; everything else does. Nothing is worked out: ``ab`` is
not ``ba``.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_SPELLED_CHARS = 2_000
MAX_GROUPS = 20
"""Texts that are longer, or nested deeper, have no canonical spelling here."""

_TOKEN = re.compile(r"\\text\s*\{([^{}]*)\}|\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\S")
_ARGUMENTS = {
    "frac": 2, "binom": 2, "sqrt": 1, "mathbb": 1, "mathcal": 1, "mathfrak": 1, "mathscr": 1, "overline": 1, "bar": 1,
    "hat": 1, "widehat": 1, "tilde": 1, "widetilde": 1, "vec": 1, "dot": 1, "ddot": 1, "pmod": 1,
    "overrightarrow": 1, "overleftrightarrow": 1,
}  # fmt: skip
_SYNONYMS = {
    r"\rightarrow": r"\to", r"\longrightarrow": r"\to", r"\implies": r"\Rightarrow", r"\Longrightarrow": r"\Rightarrow",
    r"\iff": r"\Leftrightarrow", r"\Longleftrightarrow": r"\Leftrightarrow", r"\land": r"\wedge", r"\lor": r"\vee",
    r"\lnot": r"\neg", r"\owns": r"\ni", r"\|": r"\Vert", r"\lVert": r"\Vert", r"\rVert": r"\Vert",
    r"\overrightarrow": r"\vec", r"\widehat": r"\hat", r"\widetilde": r"\tilde",
    r"\varphi": r"\phi", r"\varepsilon": r"\epsilon", r"\vartheta": r"\theta", r"\dots": r"\ldots",
    r"\cdots": r"\ldots", r"\dotsc": r"\ldots", r"\dotsb": r"\ldots", r"\lbrack": "[", r"\rbrack": "]",
    r"\smallsetminus": r"\setminus", r"\backslash": r"\setminus", r"\parallel": r"\Vert", r"\divides": "|",
    r"\simeq": r"\cong", r"\lt": "<", r"\gt": ">", r"\prime": "'", r"\intercal": r"\top",
    r"\triangleleft": r"\lhd", r"\trianglelefteq": r"\unlhd",
}  # fmt: skip
_NAMED_OPERATORS_WORDS = "max min sup inf gcd lcm dim ker det deg"
_NAMED_OPERATORS = frozenset(_NAMED_OPERATORS_WORDS.split())
_BRACKETED_OPERATORS = frozenset((r"\max", r"\min", r"\sup", r"\inf", r"\gcd", r"\lcm"))
_FUNCTIONS = frozenset(
    rf"\{name}"
    for name in (
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "ln",
        "log",
        "exp",
        "det",
        "dim",
        "ker",
    )
)
_ENDS_ARGUMENT = frozenset("+-=<>,;)]}|") | {
    r"\}",
    r"\le",
    r"\ge",
    r"\ne",
    r"\to",
}

Atom = tuple[str, ...]


class _NotSpelled(Exception):
    """The braces do not balance, or the text is nested too deep."""


class _Reader:
    """Reads tokens into atoms: a token, a group in braces, or a command with its arguments."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def sequence(self, closing: str) -> list[Atom]:
        self.depth += 1
        if self.depth > MAX_GROUPS:
            raise _NotSpelled
        atoms: list[Atom] = []
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token == "}":
                break
            if token in "_^":
                self.scripts(atoms)
            else:
                atom = self.atom()
                if atom != ("{", "}"):
                    atoms.append(atom)
        if closing and self.position >= len(self.tokens):
            raise _NotSpelled
        if not closing and self.position < len(self.tokens):
            raise _NotSpelled
        self.depth -= 1
        return atoms

    def atom(self) -> Atom:
        if self.position >= len(self.tokens):
            raise _NotSpelled
        token = self.tokens[self.position]
        self.position += 1
        if token == "{":
            atoms = self.sequence("}")
            self.position += 1
            return _grouped(atoms)
        count = _ARGUMENTS.get(token[1:], 0) if token.startswith("\\") else 0
        if not count:
            return (token,)
        if token == r"\overline" and (
            self.peek().isalpha() or self.tokens[self.position + 2 : self.position + 3] == ["}"]
        ):
            token = r"\bar"
        self.depth += 1
        if self.depth > MAX_GROUPS:
            raise _NotSpelled
        spelled: Atom = (_SYNONYMS.get(token, token),)
        if token == r"\sqrt" and self.peek() == "[":
            end = self.tokens.index("]", self.position) if "]" in self.tokens[self.position :] else -1
            if end < 0:
                raise _NotSpelled
            spelled += tuple(self.tokens[self.position : end + 1])
            self.position = end + 1
        for _ in range(count):
            argument = self.atom()
            spelled += argument if len(argument) == 1 or argument[0] == "{" else ("{", *argument, "}")
        self.depth -= 1
        return spelled

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def scripts(self, atoms: list[Atom]) -> None:
        r"""``x^2_1`` is ``x_1^2``; primes are part of the superscript."""
        found: dict[str, Atom] = {}
        while (mark := self.peek()) in ("_", "^") and mark and mark not in found:
            self.position += 1
            content = self.atom()
            if mark == "^" and set(content) <= {"'", "{", "}"}:
                atoms.extend(("'",) for token in content if token == "'")
                continue
            found[mark] = ("T",) if mark == "^" and content in ((r"\top",), ("\\text:T",)) else content
        for mark in ("_", "^"):
            if mark in found:
                content = found[mark]
                if content == (r"\cdot",):
                    content = ("*",)  # A^{\ast}: the star is a product sign elsewhere
                atoms.append((mark, *(content if len(content) == 1 else _braced(content))))


def _braced(atom: Atom) -> Atom:
    return atom if atom[0] == "{" else ("{", *atom, "}")


def _grouped(atoms: list[Atom]) -> Atom:
    """A group of one atom is that atom; any other keeps its braces."""
    if len(atoms) == 1:
        return atoms[0]
    return ("{", *(token for atom in atoms for token in atom), "}")


def _tokens(text: str) -> list[str]:
    tokens = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.group(1) is not None:
            word = " ".join(match.group(1).split())
            if not word:
                continue
            if word in _NAMED_OPERATORS:
                tokens.append(f"\\{word}")
            elif word.isalpha() and len(word) <= 4:
                tokens.extend(word)  # \text{GL}_2 prints as GL_2 does
            else:
                tokens.append(f"\\text:{word}")
        else:
            tokens.append(_SYNONYMS.get(token, token) if token not in (r"\overrightarrow",) else r"\vec")
    return tokens


def _plain_brackets(tokens: list[str]) -> list[str]:
    r"""``\max\{a, b\}`` is ``\max(a, b)``, and ``\sin(x)`` at the end of a term is ``\sin x``."""
    result: list[str] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        following = tokens[index + 1] if index + 1 < len(tokens) else ""
        if token in _BRACKETED_OPERATORS and following in (r"\{", "["):
            closing = {r"\{": r"\}", "[": "]"}[following]
            end = _closing(tokens, index + 1, following, closing)
            if end > 0:
                tokens = [*tokens[: index + 1], "(", *tokens[index + 2 : end], ")", *tokens[end + 1 :]]
        elif token in _FUNCTIONS and following == "(":
            end = index + (4 if tokens[index + 3 : index + 4] == [r"\degree"] else 3)
            after = tokens[end + 1] if end + 1 < len(tokens) else "+"
            if tokens[end : end + 1] == [")"] and after in _ENDS_ARGUMENT:
                tokens = [*tokens[: index + 1], *tokens[index + 2 : end], *tokens[end + 1 :]]
        result.append(token)
        index += 1
    return result


def _closing(tokens: list[str], start: int, opener: str, closer: str) -> int:
    depth = 0
    for index in range(start, len(tokens)):
        depth += (tokens[index] == opener) - (tokens[index] == closer)
        if depth == 0:
            return index
    return -1


_MOD = re.compile(
    r"\(\s*(?:\\(?:bmod|mod)(?![A-Za-z])|\\text\s*\{\s*mod\s*\}|mod(?![A-Za-z]))\s*([^()]{1,60})\)"
    r"|(?:\\(?:bmod|mod)(?![A-Za-z])|\\text\s*\{\s*mod\s*\}|(?<![A-Za-z\\])mod(?![A-Za-z]))\s*(\d+|[A-Za-z])\s*$"
)
_QUOTIENT = re.compile(
    r"\\mathbb\s*(?:\{\s*Z\s*\}|Z)\s*/\s*(?:\(\s*)?(\d+|[a-z])\s*\\mathbb\s*(?:\{\s*Z\s*\}|Z)(?:\s*\))?"
)


@lru_cache(maxsize=2_048)
def canonical_spelling(text: str) -> tuple[str, ...] | None:
    r"""The tokens of a normalized text, alike for all texts that print alike; ``None`` where braces do not balance.

    Args:
        text (`str`): As :func:`~verl_ispo.grading.normalization.normalize_answer` returns it.
    """
    if len(text) > MAX_SPELLED_CHARS:
        return None
    if r"\equiv" in text and "mod" in text:
        text = _MOD.sub(lambda modulus: rf"\pmod{{{modulus.group(1) or modulus.group(2)}}}", text)
    text = text.replace(r"\mathcal{O}(", "O(")
    text = _QUOTIENT.sub(r"\\mathbb{Z}_{\1}", text)
    try:
        atoms = _Reader(_tokens(text)).sequence("")
    except _NotSpelled:
        return None
    return tuple(_plain_brackets([token for atom in atoms for token in atom]))


def same_spelling(left: str, right: str) -> bool:
    """Whether two normalized texts print alike."""
    if left == right:
        return True
    spelled = canonical_spelling(left)
    return spelled is not None and len(spelled) > 0 and spelled == canonical_spelling(right)


_ONLY_SPELLED = re.compile(
    r"\\(?:mathbb|aleph|beth|top|intercal|dagger|pmod|equiv|cong|simeq|oplus|otimes|subseteq|subset|supset|supseteq"
    r"|mid|ker|dim|mathcal|mathfrak|mathscr|rtimes|ltimes|wr|hookrightarrow|mapsto|forall|exists|Vdash|models|lhd|unlhd"
    r"|twoheadrightarrow|wp|nmid|ll|gg|prec|succ|perp|parallel|sim|vdash|neg|wedge|vee|land|lor|cap|cup|setminus)"
    r"(?![A-Za-z])|\^\s*\{?\s*(?:T(?![A-Za-z])|\\text\{T\}|\*)"
)


def is_only_spelled(text: str) -> bool:
    r"""Whether a text has symbols that have no values, such as ``\mathbb{Z}_8`` or ``A^T``, and so can be compared by
    its spelling alone."""
    return _ONLY_SPELLED.search(text) is not None
