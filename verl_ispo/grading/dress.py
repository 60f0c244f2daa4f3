r"""Take off what an answer wears: colours, sizes, underlines, signs of conclusion, filler words; and plain respellings.

What is dropped says nothing about the value: ``\textcolor{red}{7}``, ``\Large 7``, ``\therefore 7``,
``7 \blacksquare`` and ``\text{The answer is }7`` are 7. A word that is not in the list of fillers stays, and so does a
negation.
"""

from __future__ import annotations

import re

from .latex_groups import group_end

MAX_REWRITES = 16
"""Infix commands such as ``\\over`` that are rewritten in one text; any further ones stay."""

_COLOURS = re.compile(
    r"\\(?:textcolor|color|colorbox|fcolorbox|pagecolor|mathcolor|definecolor|cellcolor|rowcolor)(?![A-Za-z])\s*"
    r"(?:\[[A-Za-z]{1,10}\]\s*)?(?:\{[^{}]{0,40}\}\s*)"
)
_FRAMED_COLOUR = re.compile(r"\\fcolorbox\s*\{[^{}]{0,40}\}\s*(?=\{)")
_KATEX_COLOURS = re.compile(
    r"\\(?:red|blue|green|orange|purple|teal|gray|grey|cyan|magenta|brown)(?![A-Za-z])\s*(?=\{)"
)
_SIZES = re.compile(
    r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|bfseries|itshape|rmfamily"
    r"|sffamily|ttfamily|mdseries|upshape|normalfont|centering|hfill|null|relax|protect|allowbreak|nobreak"
    r"|boldmath|unboldmath|scriptscriptstyle|newline|medskip|bigskip|smallskip|par)(?![A-Za-z])\s*"
)
_FONT_SWITCH = re.compile(r"\\(?:bf|it|rm|sf|tt)(?![A-Za-z])\s*(?=[-\d(]|\\(?:frac|sqrt|pi)(?![A-Za-z]))")
_LINES = re.compile(
    r"\\(?:underline|pmb|uline|uuline|uwave|boxed|fbox|framebox|framed|ensuremath|mathop|mathord|mathrel|mathbin|mathinner"
    r"|mathclose|mathopen|centerline|smash|mathstrut|fcolorbox|hl|bbox)\s*(?=\{)"
)
_FRACTIONS = re.compile(r"\\(?:nicefrac|sfrac|xfrac|flatfrac|rfrac|slfrac)(?![A-Za-z])")
_SIGNS_AT_END = (
    r"\\(?:checkmark|blacksquare|square|Box|qed|qedsymbol|QED|blacklozenge|lozenge|bigstar|Halmos|openbox"
    r"|tick|cmark)(?![A-Za-z])|\\text\s*\{\s*q\.?e\.?d\.?\s*\}"
)
_LEADING = re.compile(
    r"(?:\\(?:therefore|Rightarrow|implies|Longrightarrow|rightarrow|longrightarrow|to|iff|Leftrightarrow|checkmark"
    r"|star|bullet|triangleright|blacktriangleright|leadsto|rightsquigarrow)(?![A-Za-z])"
    r"|=>|->|⇒)\s*"
)
_TRAILING_SIGN = re.compile(
    rf"(?<=[\w)}}\]|!%'$.*])(?:\\[,;: ]|\\q?quad|[\s~]){{0,8}}(?:{_SIGNS_AT_END})\s{{0,8}}\$?$", re.IGNORECASE
)

_FILLERS_WORDS = (
    "the final answer answers is are so thus hence therefore we get have obtain find found that it our result "
    "results value values solution solutions this gives equals be correct option choice required requested "
    "desired exact total then and here which to number of ways ans sol exactly there"
)
_FILLERS = frozenset(_FILLERS_WORDS.split())
_FILLER_STARTS_WORDS = (
    "the answer answers final so thus hence therefore we our result solution ans option choice correct exactly there"
)
_FILLER_STARTS = frozenset(_FILLER_STARTS_WORDS.split())
_TEXT_IN_FRONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mbox|textnormal|emph)\s*\{([A-Za-z ,:.*]{2,80})\}\s*(?=\S)"
)
_WHOLE_TEXT = re.compile(r"\\text\s*\{([^{}]{1,200})\}")
_WORDS_IN_FRONT = re.compile(r"((?:[A-Za-z]{2,12}[ ,:]{1,3}){1,12})(?=[^A-Za-z,:]|[A-Z](?![a-z])|[a-z](?![a-z]))")
_TRAILING_FILLER = re.compile(
    r"\s{0,8}(?:\\text\s*\{\s*)?is (?:the|our) (?:final |correct |required )?(?:answer|solution|result)"
    r"\s*\.?\s*\}?\s*\.?$"
)


def undressed(text: str) -> str:
    r"""The text without colours, sizes, lines, signs around it and filler words in front of it."""
    if "\\" in text:
        text = _without_commands(text)
    for _ in range(4):
        before = text
        text = _TRAILING_SIGN.sub("", text.strip())
        text = _without_leading(text)
        text = _TRAILING_FILLER.sub("", text)
        if text == before:
            break
    return text


def _without_commands(text: str) -> str:
    if "olor" in text:
        text = _FRAMED_COLOUR.sub(r"\\fcolorbox", text)
        text = _COLOURS.sub("", text)
    text = _KATEX_COLOURS.sub("", text)
    text = _SIZES.sub(" ", text)
    text = _FONT_SWITCH.sub("", text)
    text = _LINES.sub("", text)
    text = _FRACTIONS.sub(r"\\frac", text)
    text = _maths_out_of_text(text)
    if r"\over" in text or r"\choose" in text:
        text = _infix_commands(text)
    return text


def _without_leading(text: str) -> str:
    inside = _WHOLE_TEXT.fullmatch(text)
    if inside is not None:
        words = _WORDS_IN_FRONT.match(inside.group(1).lstrip())
        if words is not None and _is_filler(words.group(1)):
            return rf"\text{{{inside.group(1).lstrip()[words.end() :].lstrip(' :=')}}}"
    sign = _LEADING.match(text)
    if sign is not None and sign.end() < len(text):
        return text[sign.end() :]
    words = _TEXT_IN_FRONT.match(text) or _WORDS_IN_FRONT.match(text)
    if words is not None and _is_filler(words.group(1)) and words.end() < len(text):
        return text[words.end() :].lstrip(" :=")
    return text


def _is_filler(words: str) -> bool:
    found = re.findall(r"[a-z]+", words.lower())
    return bool(found) and found[0] in _FILLER_STARTS and all(word in _FILLERS for word in found)


_TEXT_COMMAND = re.compile(
    r"\\(text|mbox|hbox|textbf|textit|textrm|textnormal|textup|emph|mathbf|boldsymbol|bm|mathrm|mathit|mathsf|mathnormal)"
    r"(?![A-Za-z])\s*\{"
)

_MATHS_FONTS = frozenset(("mathbf", "boldsymbol", "bm", "mathit"))


def _maths_out_of_text(text: str) -> str:
    r"""``\text{(B) $\frac12$}`` becomes ``\text{(B) }\frac12``, and ``\mathbf{\frac12}`` becomes ``\frac12``."""
    position = 0
    for _ in range(MAX_REWRITES):
        command = _TEXT_COMMAND.search(text, position)
        if command is None:
            break
        position = command.end()
        end = group_end(text, command.end() - 1)
        content = text[command.end() : end - 1] if end > 0 else ""
        if content.count("$") == 2:
            before, maths, after = content.split("$")
            left, right = (rf"\text{{{words}}}" if words.strip() else "" for words in (before, after))
            opened = f"{left} {maths} {right}"
        elif content and re.search(r"[\\+=^_\d]", content) and not re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", content):
            is_whole = command.start() == 0 and end == len(text) and re.search(r"\d", content) is not None
            if not is_whole and command.group(1) not in _MATHS_FONTS and not re.search(r"\\[A-Za-z]", content):
                continue  # \mathrm{m^2} is a unit
            opened = f"{{{content}}}"
        else:
            continue
        text = text[: command.start()] + opened + text[end:]
        position = command.start()
    return text


_INFIX = re.compile(r"\\(over|choose)(?![A-Za-z])\s*")


def _infix_commands(text: str) -> str:
    r"""``{a \over b}`` becomes ``\frac{a}{b}`` and ``{n \choose k}`` becomes ``\binom{n}{k}``, inner ones first."""
    for _ in range(MAX_REWRITES):
        found = None
        for found in _INFIX.finditer(text):  # noqa: B007 - the last one has no other inside its right side
            pass
        if found is None:
            break
        start, end = _enclosing_group(text, found.start(), found.end())
        if start is None or end is None:
            break
        command = r"\frac" if found.group(1) == "over" else r"\binom"
        top, bottom = text[start : found.start()].strip(), text[found.end() : end].strip()
        if not top or not bottom:
            break
        # the braces of the group stay around it
        text = rf"{text[:start]}{command}{{{top}}}{{{bottom}}}{text[end:]}"
    return text


def _enclosing_group(text: str, left: int, right: int) -> tuple[int | None, int | None]:
    """Where the content of the innermost group around a position starts and ends; the whole text where none is."""
    depth, start = 0, 0
    for index in range(left - 1, -1, -1):
        if text[index] in "{}" and (index == 0 or text[index - 1] != "\\"):
            depth += 1 if text[index] == "}" else -1
            if depth < 0:
                start = index + 1
                break
    depth, end = 0, len(text)
    for index in range(right, len(text)):
        if text[index] in "{}" and text[index - 1] != "\\":
            depth += 1 if text[index] == "{" else -1
            if depth < 0:
                end = index
                break
    if (start == 0) != (end == len(text)):
        return None, None
    return start, end
