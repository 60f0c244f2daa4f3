r"""Bring an answer's text to one spelling: unicode to LaTeX, LaTeX synonyms to one command, cosmetics removed.

Nothing here changes what a text means; two texts that come out alike are the same answer. What needs to
understand the mathematics (lists, intervals, units, numbers) is in :mod:`~verl_ispo.grading.answer_structure` and
below.
"""

from __future__ import annotations

import re
import unicodedata

from .dress import undressed
from .latex_groups import group_end

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
    "…": r"\ldots ", "、": ",", "。": ".", "∴": r"\therefore ", "⇒": r"\Rightarrow ", "→": r"\to ",
    "✓": r"\checkmark ", "✔": r"\checkmark ", "✅": r"\checkmark ", "■": r"\blacksquare ", "□": r"\square ",
    "∎": r"\blacksquare ", "▪": r"\blacksquare ", "≃": r"\simeq ", "≅": r"\cong ", "≡": r"\equiv ", "∶": ":",
    "∧": r"\wedge ", "∨": r"\vee ", "∀": r"\forall ", "∖": r"\setminus ", "ℵ": r"\aleph ", "⊤": r"\top ",
    "∠": r"\angle ", "△": r"\triangle ", "⊕": r"\oplus ", "⊗": r"\otimes ", "ᵀ": "^{T}", "σ": r"\sigma ",
    "δ": r"\delta ", "ε": r"\epsilon ", "ρ": r"\rho ", "τ": r"\tau ", "ψ": r"\psi ", "Δ": r"\Delta ",
    "Ω": r"\Omega ", "∣": "|", "￨": "|", "ϕ": r"\phi ", "𝜋": r"\pi ", "º": r"\degree ", "˚": r"\degree ",
}  # fmt: skip
_SUPERSCRIPTS = {"⁰": "0", "¹": "1", "²": "2", "³": "3", "⁴": "4", "⁵": "5", "⁶": "6", "⁷": "7", "⁸": "8", "⁹": "9"}
_SUBSCRIPTS = {chr(0x2080 + digit): str(digit) for digit in range(10)}
_SUPER_RUN = re.compile("⁻?[" + "".join(_SUPERSCRIPTS) + "]+")
_SUB_RUN = re.compile("[" + "".join(_SUBSCRIPTS) + "]+")
_NON_ASCII = re.compile(r"[^\x20-\x7e]")
_EMPHASIS = re.compile(r"^(?:\*{1,3}|_{2,3}|`{1,3})(?=[^*_`])(.*?[^*_`])(?:\*{1,3}|_{2,3}|`{1,3})$", re.DOTALL)

_ABOUT = r"approximately|approx\.?|about|roughly"
_NEAR = "simeq|sim|doteq|thickapprox|thicksim|approxeq"
# Rows of (what a text has to hold for the pattern to be tried, the pattern, its replacement), in this order.
_SYNONYMS = [
    (hint, re.compile(pattern), replacement)
    for hint, pattern, replacement in [
        (".", r"\\(?:left|right|middle|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg)\s*\.", ""),
        ("\\", r"\\(?:left|right|middle|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg)(?![A-Za-z])\s*", ""),
        ("\\", r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut|noindent)(?![A-Za-z])", " "),
        ("\\", r"\\(?:phantom|hphantom|vphantom|label|tag)\s*\{[^{}]*\}", " "),
        ("frac", r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        ("binom", r"\\dbinom(?![A-Za-z])|\\tbinom(?![A-Za-z])", r"\\binom"),
        (",", r"\{\s*,\s*\}\s*|,\s*\\!\s*|\\!\s*,", ","),
        ("\\!", r"\\!", ""),
        ("", r"(?<=\d)(?:\\[,;:]|\\thinspace|\\ |~)(?=\d{3}(?!\d))", " "),
        ("\\", r"\\(?:[,;:>]|quad(?![A-Za-z])|qquad(?![A-Za-z])|thinspace(?![A-Za-z])|hspace\s*\{[^{}]*\})", " "),
        ("", r"(?<!\\)\\(?=\s)|~", " "),
        ("\\", r"\\(?:mathbf|mathit|boldsymbol|bm)\s*\{\s*([A-Za-z])\s*\}", r" \1 "),
        ("\\", r"\\(?:mbox|textbf|textit|textrm|textsf|texttt|textnormal|textup|mathrm|mathbf|mathit|mathsf|mathnormal"
         r"|boldsymbol|bm|operatorname\*?|hbox|emph|rm|bf)(?![A-Za-z])\s*\{", r"\\text{"),
        ("{", r"\{\s*\\(?:rm|bf|it|sf|tt)\s+", r"\\text{"),
        ("\\text", r"\\text\s*\{\s*([eid])\s*\}", r" \1 "),
        ("\\text", r"\\text\s*\{\s*(-?\d+(?:\.\d+)?)\s*\}", r" \1"),
        ("\\text", r"\\text\s*\{\s{0,8}(-?\d[\d,]*(?:\.\d+)?)\s{1,8}([A-Za-z][A-Za-z /.]*)(\^\s*\{?[23]\}?)?\s*\}",
         r"\1\\text{\2}\3"),
        ("\\text", r"\\text\s*\{([A-Za-z /.~]{1,40})\^\s*\{?\s*([23])\s*\}?\s*\}", r"\\text{\1}^{\2}"),
        ("\\text", r"\\text\s*\{\s*(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp|gcd|lcm)\s*\}", r"\\\1 "),
        ("\\text", r"\\text\s*\{\s*\}", " "),
        ("", r"\\(?:geqslant|geqq|geq)(?![A-Za-z])|>=|\\ge(?![A-Za-z])", r"\\ge "),
        ("", r"\\(?:leqslant|leqq|leq)(?![A-Za-z])|<=|\\le(?![A-Za-z])", r"\\le "),
        ("", r"\\neq(?![A-Za-z])|\\not\s*=|!=|\\ne(?![A-Za-z])", r"\\ne "),
        ("\\gt", r"\\gt(?![A-Za-z])", ">"),
        ("\\lt", r"\\lt(?![A-Za-z])", "<"),
        ("\\", r"\\(?:varnothing|empty)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        ("\\colon", r"\\colon(?![A-Za-z])", ":"),
        ("\\lbrace", r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
        ("\\rbrace", r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
        ("\\lbrack", r"\\(?:lbrack)(?![A-Za-z])", "["),
        ("\\rbrack", r"\\(?:rbrack)(?![A-Za-z])", "]"),
        ("\\", r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        # between letters it may be a cross product, whose order counts, or another operation
        ("\\", r"(?:(?<=[A-Za-z}])|(?<=_\d))\s{0,4}\\(times|ast|star)\s{0,4}"
         r"(?=[A-Za-z]|\\(?:vec|overrightarrow|text|mathb[bf])(?![A-Za-z]))", r"\\kept\1 "),
        ("\\", r"\\(?:times|ast|star)(?![A-Za-z])", r"\\cdot "),
        ("\\kept", r"\\kept(times|ast|star)(?![A-Za-z])", r"\\\1 "),
        ("\\div", r"\\div(?![A-Za-z])", "/"),
        ("\\infin", r"\\infin(?![A-Za-z])", r"\\infty"),
        ("\\", r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))|\\text\s*\{\s*deg(?:ree)?s?\s*\}"
         r"|\\deg(?![A-Za-z])|\\textdegree(?![A-Za-z])", r"\\degree "),
        ("degree", r"(?<=[0-9}\s])degrees?(?![A-Za-z])", r"\\degree "),
        ("^", r"(?<=\d)\^\s*(?:\{\s*o\s*\}|o(?![A-Za-z]))", r"\\degree "),
        ("\\degree", r"\\degree\s*(?:\\text\s*\{\s*)?C\s*\}?$", r"\\text{celsius}"),
        ("\\degree", r"\\degree\s*(?:\\text\s*\{\s*)?F\s*\}?$", r"\\text{fahrenheit}"),
        ("", r"\\%|(?:\\text\s*\{\s*)(?:percent|per cent|pct)(?:\s*\})|(?<![A-Za-z])(?:percent|per cent)(?![A-Za-z])",
         "%"),
        ("", r"(?<![A-Za-z\\])infinity(?![A-Za-z])|(?<![A-Za-z\\])oo(?![A-Za-z])", r"\\infty "),
        ("pi", r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        ("", r"(?<![A-Za-z\\])(sin|cos|tan|cot|sec|csc|ln|log|exp)(?=\s*[(\\{]|_[\d{]| ?\d)", r"\\\1 "),
        ("*", r"(?<=[\w)}])\s*\*\*\s*(?=[\w({\\-])", "^"),
        ("*", r"(?<=[\w)}])\s*\*\s*(?=[\w({\\-])", r"\\cdot "),
        ("^", r"\^\s*(-?\d{2,})", r"^{\1}"),
        ("\\log", r"\\log\s*_\s*(?:e(?![A-Za-z])|\{\s*e\s*\})", r"\\ln "),
        ("\\log", r"\\log\s*_\s*([2-9])(?=\d{1,12}(?:[-+,;=)}\]|/!]|\\cdot|\s*$))", r"\\log_{\1}"),
        ("\\log", r"\\log\s*_\s*(\d)(?!\d)", r"\\log_{\1}"),
        ("_", r"_\s*(\d{2,})", r"_{\1}"),
        ("\\sqrt", r"\\sqrt\s*\[\s*2\s*\]", r"\\sqrt"),
        ("\\math", r"\\(mathbb|mathcal|mathfrak)\s+([A-Za-z])(?![A-Za-z])", r"\\\1{\2}"),
        ("\\in", r"\\in\s*([RZNQC])(?![A-Za-z_^{(])", r"\\in\\mathbb{\1}"),
        ("C", r"(?<![\w}])(?:\{\s*\})?[_^]\s*\{?(\d{1,4})\}?\s*(?:\\text\s*\{\s*C\s*\}|C)\s*_\s*\{?(\d{1,4})\}?",
         r"\\binom{\1}{\2}"),
        ("(", r"\(\s{0,8}=\s{0,8}([^()=]{1,60})\)$", r"=\1"),
        ("\\binom", r"\\binom\s*(\d|[A-Za-z])\s*(\d|[A-Za-z])", r"\\binom{\1}{\2}"),
        ("\\text", rf"\\text\s*\{{\s{{0,8}}(\((?:{_ABOUT})\s{{1,8}}-?\d*\.?\d+\))\s*\}}$", r"\1"),
        (")", rf"\(\s{{0,8}}(?:\\(?:{_NEAR}|approx)(?![A-Za-z])|\\text\s*\{{\s*(?:or )?(?:{_ABOUT})\s*\}}"
         rf"|(?:{_ABOUT})\s)" r"\s*((?:-?\d[\d,]*\.?\d*|-?\.\d+)[^(){}]{0,40})\)$", r"\\approx \1"),
        ("\\", rf"\\(?:{_NEAR}|cong)(?![A-Za-z])(?=\s*-?\d*\.\d)", r"\\approx "),
        ("\\text", rf"\\text\s*\{{\s*,?\s*(?:or|i\.e\.,?)? ?(?:{_ABOUT})\s*\}}(?=\s*-?\d*\.\d)", r"\\approx "),
    ]
]  # fmt: skip
_GREEK = r"\\(?:pi|theta|alpha|beta|gamma|phi|lambda|mu|omega|delta|sigma)(?![A-Za-z])"
_SHORT_FRACTION = re.compile(rf"\\frac\s*(?:(\d|[A-Za-z]|{_GREEK})|(\{{))")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d+(?:\.\d+)?|[A-Za-z]|\\pi)")
_ROOT_CALL = re.compile(r"(?<![A-Za-z])(?:\\?sqrt)\s*\(")
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
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
        elif (command := re.match(_GREEK, rest)) is not None:
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


_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_WRAPPED_FIRST = frozenset("$\\*_`{")
_WRAPPED_LAST = frozenset(".,;:?*\\")
_SENTENCE_END = re.compile(r"(?:(?<![\\.])[.,;:?]|\*\*|(?<!\\)\\)$")
_REPEATING = re.compile(
    r"(-?\d*\.\d*)\s*(?:\((\d+)\)|\\(?:overline|bar)\s*(?:\{\s*(\d+)\s*\}|(\d))"
    r"|\\dot\s*(?:\{\s*(\d)\s*\}|(\d))(?:(\d*)\s*\\dot\s*(?:\{\s*(\d)\s*\}|(\d)))?)"
)


def _repeating_decimal(text: str) -> str:
    r"""``0.1(6)``, ``0.1\bar6`` and ``0.1\dot6`` become ``0.1\overline{6}``, where they are the whole text."""
    name, equals, number = text.rpartition("=")
    match = _REPEATING.fullmatch(number.strip())
    if match is None:
        return text
    fixed, *cycle = match.groups()
    return rf"{name}{equals}{fixed}\overline{{{''.join(digits or '' for digits in cycle)}}}"


def _strip_wrapping(text: str) -> str:
    """Take off maths delimiters, emphasis, nested boxes, and the full stop that ends a sentence."""
    for _ in range(12):
        before = text
        text = text.strip()
        if text[:1] in _WRAPPED_FIRST:
            for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
                inner = text[len(left) : -len(right)]
                if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                    if left[0] == "$" and "$" in inner:
                        continue
                    text = inner
            emphasis = _EMPHASIS.match(text)
            if emphasis is not None:
                text = emphasis.group(1)
            box = _BOX.match(text)
            if box is not None and group_end(text, box.end() - 1) == len(text):
                text = text[box.end() : -1]
            if text.startswith("{") and group_end(text, 0) == len(text):
                text = text[1:-1]
        if text[-1:] in _WRAPPED_LAST:
            text = _SENTENCE_END.sub("", text)
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
    if len(text) <= 40 and _PLAIN_NUMBER.fullmatch(text):
        return text
    text = printable_text(text[: 4 * MAX_ANSWER_CHARS])
    if len(text) > MAX_ANSWER_CHARS:
        return text[: MAX_ANSWER_CHARS + 1]
    text = _strip_wrapping(undressed(_strip_wrapping(text)))
    text = text.replace("\\$", "\\text{dollars}") if "\\$" in text else text
    text = text.replace("$", " ")
    for hint, pattern, replacement in _SYNONYMS:
        if hint in text and pattern.search(text):
            text = pattern.sub(replacement, text)
    if "sqrt" in text:
        text = _brace_root_calls(text)
        text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    if "\\frac" in text:
        text = _brace_fractions(text)
    if "." in text:
        text = _repeating_decimal(text)
    text = _strip_wrapping(text.lstrip("= "))
    return _SPACE_KEPT.sub(_compact_space, text).strip()
