r"""Choice letters: ``\textbf{(B)}\ 4`` is choice B, whose text is 4; ``A, C`` and ``AC`` are two choices.

What follows a letter counts. It is the choice's text where it can be one, and otherwise the whole is no choice:
``(A)+1`` and ``(A) \text{ is wrong}`` do not choose A, and ``(A)(C)`` chooses both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_CHOICE_CHARS = 400

_LETTER = "[A-Ja-j]"
# \text{(B)}, \text{B.}, \text{B}, (B), [B], B., B), B:
_MARKED = re.compile(
    rf"(?:\\text\{{\s?\(?(?P<typed>{_LETTER})(?P<typedmark>[.:)]{{0,2}})\s?\}}|\((?P<round>{_LETTER})\)|\[(?P<square>[A-J])\]"
    rf"|(?P<dotted>[A-J])(?P<mark>[.:)]))[.:]?\s?"
)
_FIRST = frozenset("ABCDEFGHIJabcdefghij([\\")
_BARE = re.compile(r"[A-J](?![A-Za-z_^'(])")
_SINGLE = re.compile(rf"(?:{_MARKED.pattern}|(?P<bare>{_LETTER}))[.:]?")
_BETWEEN = re.compile(r"\s?(?:,|;|&|\\&|\\text\{\s?,?\s?(?:and|&)?\s?\}|and)?\s?")
_RUN = re.compile(r"(?:\\text\{)?\s?([A-J]{2,8})\s?\}?")
_TYPED_LIST = re.compile(r"\\text\{([A-J(), ;&.]|\band\b){2,60}\}")
_TYPED_WHOLE = re.compile(r"\\text\{ ?(\([A-J]\)|[A-J][.:)]) ?([A-Za-z][^{}]*)\}")
_REPEATED = re.compile(r"(?:[(\[]?[A-J][.:)\]]\s?){1,8}[(\[]?[A-J][.:)\]]?")  # A.A. and (A)(A) choose nothing
_COLON = re.compile(r"[A-J]:")
_REFUSED_TEXT = re.compile(
    r"\b(?:not|no|wrong|incorrect|false|isn|never|except|or|and|rejected|excluded|neither|nor|but|cannot|instead|maybe)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Choice:
    """What an answer chooses.

    Attributes:
        letters (`frozenset[str]`): in capitals; one, unless several are chosen.
        text (`str`): what follows a single letter, ``""`` where nothing does.
        is_marked (`bool`): written as a choice, as ``(B)`` or ``\\text{B}`` is; a bare ``B`` may be a name.
        is_small (`bool`): the letter is a small one.
        is_doubtful (`bool`): the text begins with a minus sign, and so it may be a difference.
    """

    letters: frozenset[str]
    text: str = ""
    is_marked: bool = True
    is_small: bool = False
    is_doubtful: bool = False


def read_choice(text: str) -> Choice | None:
    """The choice that a normalized text makes, or `None` where it makes none."""
    if not text or text[0] not in _FIRST or len(text) > MAX_CHOICE_CHARS:
        return None
    single = _SINGLE.fullmatch(text)
    if single is not None:
        letter = _letter(single) or single["bare"]
        return Choice(frozenset(letter.upper()), "", single["bare"] is None, letter.islower())
    if (letters := _several(text)) is not None:
        return Choice(letters)
    typed = _TYPED_WHOLE.fullmatch(text)
    if typed is not None:
        text = rf"\text{{{typed.group(1)}}}\text{{{typed.group(2)}}}"
    marked = _MARKED.match(text)
    if marked is None or marked["square"]:
        return None
    letter = _letter(marked)
    if letter.islower() and not marked["typed"]:
        return None  # (a)x is a product
    rest = text[marked.end() :].strip()
    is_labelled = marked["mark"] == "." or "." in (marked["typedmark"] or "")
    if not _may_be_text(rest, is_labelled, marked["typed"] is not None):
        return None
    return Choice(frozenset(letter.upper()), rest, True, letter.islower(), rest.startswith("-") and not is_labelled)


def _letter(match: re.Match[str]) -> str:
    return match["typed"] or match["round"] or match["square"] or match["dotted"] or ""


def _several(text: str) -> frozenset[str] | None:
    r"""The letters of ``A, C``, ``(A)(C)``, ``\text{A and C}`` or ``A.B.C``; `None` for any other text."""
    if _TYPED_LIST.fullmatch(text) is not None:
        text = text[len(r"\text{") : -1].strip()
    letters: list[str] = []
    position, all_marked = 0, True
    while position < len(text):
        item = _MARKED.match(text, position)
        if item is None:
            item, all_marked = _BARE.match(text, position), False
            if item is None:
                return None
            letters.append(item.group())
        elif item["mark"] == ":":
            return None  # A:B is a ratio
        else:
            letters.append(_letter(item).upper())
        position = item.end()
        if position == len(text):
            break
        between = _BETWEEN.match(text, position)
        if between is None or (between.end() == position and not all_marked) or between.end() == len(text):
            return None
        position = between.end()
    return frozenset(letters) if len(set(letters)) == len(letters) >= 2 else None


def _may_be_text(rest: str, is_labelled: bool, is_typed: bool) -> bool:
    """Whether what follows a letter can be the text of its choice."""
    if (
        _MARKED.match(rest)
        or re.fullmatch("[A-J]", rest)
        or re.match(
            r"[+*/^_=<>,;!'|&)\]}:%]|\\(?:cdot|pm|mp|cup|cap|le|ge|ne|in|setminus|to|equiv|approx)(?![A-Za-z])", rest
        )
    ):
        return False
    if rest.startswith("-") and not ((is_labelled or is_typed) and re.match(r"-\s?(?:\d|\\frac|\\sqrt)", rest)):
        return False
    if re.match(r"[A-Za-z](?![A-Za-z])", rest) and not (is_labelled or (is_typed and rest[0].islower())):
        return False
    words = " ".join(re.findall(r"[A-Za-z]+", re.sub(r"\\[A-Za-z]+", " ", rest)))
    return _REFUSED_TEXT.search(words) is None


def _run_of_letters(text: str) -> frozenset[str] | None:
    """The letters of ``AC``, in the order of the alphabet, each once; it may be a product or a name as well."""
    run = _RUN.fullmatch(text)
    if run is None or sorted(set(run.group(1))) != list(run.group(1)):
        return None
    return frozenset(run.group(1))


def compare_choices(gold: str, answer: str) -> bool | tuple[str, str] | None:
    """Compare two normalized texts as choices.

    Returns:
        `bool`: whether the same letters are chosen. `tuple[str, str]`: the texts of the two choices, which have to be
        compared. `None`: the key makes no choice.
    """
    key = None if _COLON.match(gold) else read_choice(gold)
    if key is None:
        chosen = read_choice(answer)
        if chosen is None or not chosen.is_marked:
            return None
        if len(chosen.letters) > 1:
            run = _run_of_letters(gold)
            return None if run is None else run == chosen.letters
        return (gold, chosen.text) if chosen.text else None
    chosen = read_choice(answer)
    if len(key.letters) > 1:
        letters = chosen.letters if chosen is not None else _run_of_letters(answer)
        return None if letters is None else letters == key.letters
    if key.text:
        if chosen is None:
            return key.text, answer
        if chosen.letters != key.letters:
            return key.text == answer
        return (key.text, chosen.text) if chosen.text else True
    if chosen is not None and chosen.is_doubtful:
        return False
    if key.is_marked:
        return chosen is not None and chosen.letters == key.letters
    if chosen is None:
        words = re.search("[A-Za-z]{2,}", answer.replace(r"\text", ""))
        return False if _REPEATED.fullmatch(answer) or (_MARKED.match(answer) and words) else None
    if len(chosen.letters) > 1:
        return False
    if chosen.letters == key.letters and chosen.is_small == key.is_small:
        return True
    return False if chosen.text else None
