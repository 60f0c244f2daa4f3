r"""Bring an answer's text to one spelling: unicode to LaTeX, LaTeX synonyms to one command, cosmetics removed.

Nothing here changes what a text means; two texts that come out alike are the same answer. What needs to
understand the mathematics (lists, intervals, units, numbers) is in :mod:`~verl_ispo.grading.answer_structure` and
below.
"""

from __future__ import annotations

import re
import unicodedata

MAX_ANSWER_CHARS = 4_000
"""Longer answers are not normalized, and not graded beyond an exact comparison of their text."""

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "√": r"\sqrt ", "°": r"\degree ", "∞": r"\infty ",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "½": r"\frac{1}{2}",
    "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}",
    "⅛": r"\frac{1}{8}", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ",
    "⟩": r"\rangle ", "′": "'", "“": '"', "”": '"', "‘": "'", "’": "'", "€": r"\text{euros}", "£": r"\text{pounds}",
    "…": r"\ldots ", "、": ",", "。": ".",
}  # fmt: skip
_SUPERSCRIPTS = {"⁰": "0", "¹": "1", "²": "2", "³": "3", "⁴": "4", "⁵": "5", "⁶": "6", "⁷": "7", "⁸": "8", "⁹": "9"}
_SUBSCRIPTS = {chr(0x2080 + digit): str(digit) for digit in range(10)}
_SUPER_RUN = re.compile("⁻?[" + "".join(_SUPERSCRIPTS) + "]+")
_SUB_RUN = re.compile("[" + "".join(_SUBSCRIPTS) + "]+")
_NON_ASCII = re.compile(r"[^\x20-\x7e]")
_EMPHASIS = re.compile(r"^(?:\*{1,3}|_{2,3}|`{1,3})(?=[^*_`])(.*?[^*_`])(?:\*{1,3}|_{2,3}|`{1,3})$", re.DOTALL)

_SYNONYMS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:left|right|middle|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg)\s*\.", ""),
        (r"\\(?:left|right|middle|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg)(?![A-Za-z])\s*", ""),
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut|noindent)(?![A-Za-z])", " "),
        (r"\\(?:phantom|hphantom|vphantom|label|tag)\s*\{[^{}]*\}", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\dbinom(?![A-Za-z])|\\tbinom(?![A-Za-z])", r"\\binom"),
        (r"\{\s*,\s*\}\s*|,\s*\\!\s*|\\!\s*,", ","),
        (r"\\!", ""),
        (r"(?<=\d)(?:\\[,;:]|\\thinspace|\\ |~)(?=\d{3}(?!\d))", " "),
        (r"\\(?:[,;:>]|quad(?![A-Za-z])|qquad(?![A-Za-z])|thinspace(?![A-Za-z])|hspace\s*\{[^{}]*\})", " "),
        (r"(?<!\\)\\(?=\s)|~", " "),
        (r"\\(?:mathbf|mathit|boldsymbol|bm)\s*\{\s*([A-Za-z])\s*\}", r" \1 "),
        (r"\\(?:mbox|textbf|textit|textrm|textsf|texttt|textnormal|textup|mathrm|mathbf|mathit|mathsf|mathnormal"
         r"|boldsymbol|bm|operatorname\*?|hbox|emph|rm|bf)(?![A-Za-z])\s*\{", r"\\text{"),
        (r"\{\s*\\(?:rm|bf|it|sf|tt)\s+", r"\\text{"),
        (r"\\text\s*\{\s*([eid])\s*\}", r" \1 "),
        (r"\\text\s*\{\s*(-?\d+(?:\.\d+)?)\s*\}", r" \1"),
        (r"\\text\s*\{\s*(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp|gcd|lcm)\s*\}", r"\\\1 "),
        (r"\\text\s*\{\s*\}", " "),
        (r"\\(?:geqslant|geqq|geq)(?![A-Za-z])|>=|\\ge(?![A-Za-z])", r"\\ge "),
        (r"\\(?:leqslant|leqq|leq)(?![A-Za-z])|<=|\\le(?![A-Za-z])", r"\\le "),
        (r"\\neq(?![A-Za-z])|\\not\s*=|!=|\\ne(?![A-Za-z])", r"\\ne "),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\(?:varnothing|empty)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
        (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
        (r"\\(?:lbrack)(?![A-Za-z])", "["),
        (r"\\(?:rbrack)(?![A-Za-z])", "]"),
        (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        # between letters it may be a cross product, whose order counts, or another operation
        (r"(?<=[A-Za-z}])\s{0,4}\\(times|ast|star)\s{0,4}(?=[A-Za-z]|\\(?:vec|overrightarrow|text|mathb[bf])(?![A-Za-z]))",
         r"\\kept\1 "),
        (r"\\(?:times|ast|star)(?![A-Za-z])", r"\\cdot "),
        (r"\\kept(times|ast|star)(?![A-Za-z])", r"\\\1 "),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\infin(?![A-Za-z])", r"\\infty"),
        (r"\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?|\^\s*\{?\s*\\degree\s*\}?|\\text\s*\{\s*deg(?:ree)?s?\s*\}"
         r"|\\deg(?![A-Za-z])|\\textdegree(?![A-Za-z])", r"\\degree "),
        (r"(?<=[0-9}\s])degrees?(?![A-Za-z])", r"\\degree "),
        (r"\\%|(?:\\text\s*\{\s*)(?:percent|per cent|pct)(?:\s*\})|(?<![A-Za-z])(?:percent|per cent)(?![A-Za-z])", "%"),
        (r"(?<![A-Za-z\\])infinity(?![A-Za-z])|(?<![A-Za-z\\])oo(?![A-Za-z])", r"\\infty "),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(sin|cos|tan|cot|sec|csc|ln|log|exp)(?=\s*[(\\{])", r"\\\1 "),
        (r"(?<=[\w)}])\s*\*\*\s*(?=[\w({\\-])", "^"),
        (r"(?<=[\w)}])\s*\*\s*(?=[\w({\\-])", r"\\cdot "),
        (r"\^\s*(-?\d{2,})", r"^{\1}"),
        (r"_\s*(\d{2,})", r"_{\1}"),
        (r"\\sqrt\s*\[\s*2\s*\]", r"\\sqrt"),
    ]
]  # fmt: skip
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d|[A-Za-z])|(\{))")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d+(?:\.\d+)?|[A-Za-z]|\\pi)")
_ROOT_CALL = re.compile(r"(?<![A-Za-z])(?:\\?sqrt)\s*\(")
_SPACE_KEPT = re.compile(r"(\\[A-Za-z]+|[A-Za-z0-9.,])?\s+(?=(.?))", re.DOTALL)


def printable_text(text: str) -> str:
    """Map unicode to LaTeX or ASCII where there is a plain equivalent, and drop what does not print.

    Control characters, surrogates, zero-width and bidirectional marks are removed; line breaks become spaces.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _SUPER_RUN.sub(_superscript, text)
    text = _SUB_RUN.sub(lambda run: "_{" + "".join(_SUBSCRIPTS[char] for char in run.group()) + "}", text)
    return _NON_ASCII.sub(_plain_character, text)


def _superscript(run: re.Match[str]) -> str:
    return "^{" + run.group().replace("⁻", "-").translate(str.maketrans(_SUPERSCRIPTS)) + "}"


def _plain_character(match: re.Match[str]) -> str:
    char = match.group()
    if char in _UNICODE:
        return _UNICODE[char]
    if 0xFF01 <= ord(char) <= 0xFF5E:  # full-width forms
        return chr(ord(char) - 0xFEE0)
    category = unicodedata.category(char)
    if char in "\t\n\r\v\f" or category.startswith("Z"):
        return " "
    return "" if category.startswith("C") else char


def group_end(text: str, start: int) -> int:
    """Index just past the group that opens at ``start`` with ``{``, ``(`` or ``[``, or -1 where it never closes."""
    opener = text[start]
    closer = {"{": "}", "(": ")", "[": "]"}[opener]
    depth, index = 0, start
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 2
            continue
        if char == opener:
            depth += 1
        elif char == closer:
            depth -= 1
            if depth == 0:
                return index + 1
        index += 1
    return -1


def _brace_fractions(text: str) -> str:
    r"""``\frac12``, ``\frac1{2}`` and ``\frac{1}2`` become ``\frac{1}{2}``."""
    pieces, position = [], 0
    while (found := _SHORT_FRACTION.search(text, position)) is not None:
        pieces.append(text[position : found.start()])
        if found.group(1):
            numerator, position = found.group(1), found.end()
        else:
            end = group_end(text, found.end() - 1)
            if end < 0:
                pieces.append(text[found.start() : found.end()])
                position = found.end()
                continue
            numerator, position = _brace_fractions(text[found.end() : end - 1]), end
        rest = text[position:].lstrip()
        if rest[:1].isalnum():
            denominator, position = rest[0], len(text) - len(rest) + 1
        elif rest[:1] == "{" and (end := group_end(rest, 0)) > 0:
            denominator, position = _brace_fractions(rest[1 : end - 1]), len(text) - len(rest) + end
        elif (command := re.match(r"\\pi(?![A-Za-z])", rest)) is not None:
            denominator, position = command.group(), len(text) - len(rest) + command.end()
        else:
            pieces.append(rf"\frac{{{numerator}}}")
            continue
        pieces.append(rf"\frac{{{numerator}}}{{{denominator}}}")
    pieces.append(text[position:])
    return "".join(pieces)


def _brace_root_calls(text: str) -> str:
    r"""``sqrt(2)`` and ``\sqrt(2)`` become ``\sqrt{2}``."""
    for _ in range(16):
        call = _ROOT_CALL.search(text)
        if call is None:
            break
        end = group_end(text, call.end() - 1)
        if end < 0:
            break
        text = rf"{text[: call.start()]}\sqrt{{{text[call.end() : end - 1]}}}{text[end:]}"
    return text


def _strip_wrapping(text: str) -> str:
    """Take off maths delimiters, emphasis, nested boxes, and the full stop that ends a sentence."""
    for _ in range(12):
        before = text
        text = text.strip()
        for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
            inner = text[len(left) : -len(right)]
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                if left[0] == "$" and "$" in inner:
                    continue
                text = inner
        emphasis = _EMPHASIS.match(text)
        if emphasis is not None:
            text = emphasis.group(1)
        box = re.match(r"\\(?:boxed|fbox)\s*\{", text)
        if box is not None and group_end(text, box.end() - 1) == len(text):
            text = text[box.end() : -1]
        text = re.sub(r"(?:(?<![\\.])[.,;:?]|\*\*|(?<!\\)\\)$", "", text)
        if text == before:
            break
    return text


def _compact_space(match: re.Match[str]) -> str:
    left, right = match.group(1) or "", match.group(2)
    if left.startswith("\\"):
        return left + (" " if right.isalpha() else "")
    if (left.isalpha() and (right.isalpha() or right == "\\")) or (left.isdigit() and right.isdigit()):
        return left + " "
    if (left.isdigit() and right.isalpha()) or (left == "," and right.isdigit()):
        return left + " "
    return left


def normalize_answer(text: str) -> str:
    r"""One spelling for one answer: ``$ \dfrac12 $.`` becomes ``\frac{1}{2}``.

    Args:
        text (`str`): An extracted answer or a ground truth.

    Returns:
        `str`: Printable text without maths delimiters, emphasis or spacing commands. A text beyond
        :data:`MAX_ANSWER_CHARS` is only cleaned of what does not print, and cut to that length plus one.
    """
    text = printable_text(text[: 4 * MAX_ANSWER_CHARS])
    if len(text) > MAX_ANSWER_CHARS:
        return text[: MAX_ANSWER_CHARS + 1]
    text = _strip_wrapping(text)
    text = text.replace("\\$", "\\text{dollars}") if "\\$" in text else text
    text = text.replace("$", " ")
    for pattern, replacement in _SYNONYMS:
        text = pattern.sub(replacement, text)
    text = _brace_root_calls(text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    if "\\frac" in text:
        text = _brace_fractions(text)
    text = _strip_wrapping(text.lstrip("= "))
    return _SPACE_KEPT.sub(_compact_space, text).strip()
