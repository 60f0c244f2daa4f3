r"""The markers of an answer other than a box: labels, tags, headings and sentences.

Each function gives the place of the last answer that its marker gives, or `None`. A label that serves for nothing else
(``Answer:``, ``<answer>``, a heading "Final Answer") gives what follows it, whatever that is. A phrase that prose and
headings use too (``####``, "the answer is", 答案) gives an answer only if what follows looks like one: few words, and
none of those that say something about the answer ("the answer is not 5", "the answer is then obtained by").
"""

from __future__ import annotations

import re

from .place import AnswerPlace, one_part, without_blanks

MAX_ANSWER_LINES = 12
"""An answer line's answer is in this many lines, the label's own among them."""

MAX_SENTENCE_CHARS = 500
"""A sentence that gives the answer ends within this many characters behind its verb."""

MAX_SENTENCE_WORDS = 6
"""The answer in a sentence has at most this many words outside formulas."""

MAX_WORDS_BEHIND_HASHES = 2
"""A line behind ``####`` that is not the text's last one has at most this many words, such as a unit."""

MAX_CHINESE_CHARS = 12
"""The answer in a Chinese sentence has at most this many Chinese characters outside formulas."""

_EMPHASIS = "*_"
_DISPLAY_OPENINGS = (r"\[", "$$")
_CLOSING_TAG = "</answer>"
# Bounded blanks: with unbounded ones on both sides of the stars, a long run of blanks would cost its square.
_ANSWER_LABEL = re.compile(r"answer[ \t]{0,8}(?:\*\*|__)?[ \t]{0,8}[:：]", re.IGNORECASE)
_HASHES = re.compile(r"(?<!#)####(?!#)")
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_HEADING = re.compile(
    r"^[ \t]{0,3}(?:"
    r"#{1,6}[ \t]{0,8}(?:\*\*|__)?(?:the[ ])?(?:final[ ])?answer(?:\*\*|__)?[ \t]{0,8}\r?$"
    r"|(?:\*\*|__)(?:the[ ])?(?:final[ ])?answer(?:\*\*|__)"
    r"|(?:the[ ])?final[ ]answer[ \t]{0,8}\r?$)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE = re.compile(
    r"(?:\b(?:the|our|my)[ ](?:(?:final|correct|right|required|desired|exact|numerical)[ ]){0,2}"
    r"|\b(?:final|correct)[ ]|\b(?:so|thus|hence|therefore),?[ ]|^)"
    r"answer(?:[ ](?:to|for)[ ](?:the|this|our)(?:[ ]\w{1,12}){1,3}?)?[ ](?:is|equals)\b"
    r"(?:[ ](?:thus|therefore|then|hence|simply|just|indeed|given[ ]by|equal[ ]to)\b){0,2}[ \t]{0,8}[:：]?",
    re.IGNORECASE | re.MULTILINE,
)
_UNASSERTED = re.compile(r"\b(?:if|whether|suppose|supposing|assume|assuming|unless)[ ](?:that[ ])?\Z", re.I)
_SENTENCE_END = re.compile(
    r"\$\$[^$\n]*\$\$|\$[^$\n]*\$|\\[(\[](?:[^\n\\]|\\(?![()\[\]]))*\\[)\]]"  # formulas, as they are
    r"|(?P<end>(?:\.|(?<=\$)!)(?=[\s*_\"”')<]|\Z)|\n|</answer>|,?[ ](?:because|since|so[ ]that)\b"
    r"|,[ ](?:so|as|not|which|and[ ](?:we|this|that|the))\b|[ ]as[ ](?:required|desired|expected|asked|requested)\b)"
    r"|(?P<question>\?)",
    re.IGNORECASE,
)
_COMMENT = re.compile(
    r"(?:not|never|no longer|neither|in|of|to|as|by|from|that|about|also|already|unique|correct|incorrect|right|wrong"
    r"|clear|obvious|reasonable|plausible|consistent|known|unknown|found|obtained|computed|calculated|derived|determined"
    r"|verified|confirmed|required|expected|supposed|asked|wanted|given|written|expressed|simplified|rounded|likely"
    r"|probably|always|sometimes|what|how)\b",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])")
_FORMULA = re.compile(r"\$[^$\n]*\$|\\[(\[](?:[^\n\\]|\\(?![()\[\]]))*\\[)\]]|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")
_NUMBERED = re.compile(r"\d{1,2}[.)]\s")
_CHINESE = re.compile(r"[一-鿿]")
_CHINESE_LABEL = re.compile(
    r"答案[ \t]{0,4}(?:】|(?:\*\*)?[ \t]{0,4}(?:应该是|应当是|应为|应是|是|为|[:：])(?:\*\*)?[ \t]{0,4}[:：]?)"
)
_CHINESE_END = re.compile(r"[。！；\n]|</answer>|[，,](?=因为|所以|因此|故|即|其中)|(?P<question>[？?])")
_CHINESE_COMMENT = re.compile(r"什么|否|多少|如何|怎|不|错|对的|正确|唯一|已知|可以|可能|需要|一个|由|在|通过")


def find_answer_line(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    """The rest of the last line with ``Answer:``, or the next line with content."""
    next_label = len(text)
    for match in reversed(list(_ANSWER_LABEL.finditer(text, search_start))):
        content = _line_behind(text, match.end(), next_label)
        if content is not None:
            return one_part("answer_line", match.start(), content)
        next_label = match.start()
    return None


def find_heading(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    """The first line with content below the last heading "Final Answer", or behind a bold one on its own line."""
    next_label = len(text)
    for match in reversed(list(_HEADING.finditer(text, search_start))):
        content = _line_behind(text, match.end(), next_label, _EMPHASIS + ":：")
        if content is not None:
            return one_part("heading", match.start(), content)
        next_label = match.start()
    return None


def find_hashes(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    """The rest of the last line behind ``####``, unless it is a heading of Markdown."""
    last_line_start = text.rfind("\n", search_start, without_blanks(text, search_start, len(text))[1]) + 1
    next_hashes = len(text)
    for match in reversed(list(_HASHES.finditer(text, search_start))):
        line_end = text.find("\n", match.end(), next_hashes)
        content = without_blanks(text, match.end(), next_hashes if line_end < 0 else line_end, _EMPHASIS)
        next_hashes = match.start()
        counts = content[0] < content[1] and not _BOX.search(text, *content)
        if counts and (match.start() >= last_line_start or not _is_title(text, content)):
            return one_part("hashes", match.start(), content)
    return None


def find_tag(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    """What is in the last ``<answer>...</answer>`` that is not empty."""
    closing = None
    for match in reversed(list(_TAG.finditer(text, search_start))):
        if match.group(1):
            closing = match.start()
        elif closing is not None:
            content = without_blanks(text, match.end(), closing)
            if content[0] < content[1]:
                return one_part("answer_tag", match.start(), content, closing + len(_CLOSING_TAG))
            closing = None
    return None


def find_sentence(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    """What the last sentence "the answer is" says, up to the end of the sentence or line."""
    next_sentence = len(text)
    for match in reversed(list(_SENTENCE.finditer(text, search_start))):
        content = None
        if _UNASSERTED.search(text, max(search_start, match.start() - 16), match.start()) is None:
            content = _sentence_behind(text, match.end(), next_sentence)
        if content is not None:
            return one_part("sentence", match.start(), content)
        next_sentence = match.start()
    return None


def find_chinese(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    """What follows the last 答案 with 是, 为 or a colon, up to the end of the sentence or line."""
    next_label = len(text)
    for match in reversed(list(_CHINESE_LABEL.finditer(text, search_start))):
        limit = min(next_label, match.end() + MAX_SENTENCE_CHARS)
        next_label = match.start()
        end = _CHINESE_END.search(text, match.end(), limit)
        if end is None and limit == match.end() + MAX_SENTENCE_CHARS:
            continue
        content = without_blanks(text, match.end(), limit if end is None else end.start(), _EMPHASIS + ":：")
        asks = end is not None and end.group("question") is not None
        is_comment = _CHINESE_COMMENT.match(text, *content) or _BOX.search(text, *content)
        if content[0] == content[1] or asks or is_comment:
            continue
        plain = _FORMULA.sub(" ", text[content[0] : content[1]])
        if len(_CHINESE.findall(plain)) <= MAX_CHINESE_CHARS:
            return one_part("chinese", match.start(), content)
    return None


def _line_behind(text: str, start: int, next_label: int, dress: str = _EMPHASIS) -> tuple[int, int] | None:
    """Start and end of the first line with content between a label and the next one; `None` if there is none.

    The next label has no answer, or it would count. A line that holds it is no answer either, and nothing is read
    beyond it, so that all labels together cost no more than the length of the text.
    """
    display = None
    for _ in range(MAX_ANSWER_LINES):
        line_end = text.find("\n", start, next_label)
        is_last = line_end < 0
        stop = next_label if is_last else line_end
        tag = text.find(_CLOSING_TAG, start, stop)
        line = without_blanks(text, start, stop if tag < 0 else tag, dress)
        if line[0] < line[1]:
            if is_last and next_label < len(text):
                break
            if display is not None or text[line[0] : line[1]] not in _DISPLAY_OPENINGS:
                return line
            display = line
        if is_last or tag >= 0:
            break
        start = line_end + 1
    return display


def _sentence_behind(text: str, start: int, next_sentence: int) -> tuple[int, int] | None:
    rest_of_line = text.find("\n", start, next_sentence)
    if rest_of_line >= 0 and not text[start : min(rest_of_line, start + 40)].strip("*_ \t:：$\\["):
        content = _line_behind(text, start, next_sentence)
        return None if content is None or _is_wordy(text, content) or _BOX.search(text, *content) else content
    limit = min(next_sentence, start + MAX_SENTENCE_CHARS)
    end = limit
    for match in _SENTENCE_END.finditer(text, start, limit):
        if match.group("question"):
            return None
        if match.group("end"):
            end = match.start()
            break
    else:
        if limit < len(text):
            return None
    content = without_blanks(text, start, end, _EMPHASIS + '"“”')
    if content[0] == content[1] or _COMMENT.match(text, *content) or _BOX.search(text, *content):
        return None
    return None if _is_wordy(text, content) else content


def _is_wordy(text: str, content: tuple[int, int]) -> bool:
    """Whether there are more words outside formulas than an answer has."""
    if content[1] - content[0] > MAX_SENTENCE_CHARS:
        return True
    return len(_WORD.findall(_FORMULA.sub(" ", text[content[0] : content[1]]))) > MAX_SENTENCE_WORDS


def _is_title(text: str, content: tuple[int, int]) -> bool:
    """Whether the rest of a line behind ``####`` reads like a title: numbered, or words in front, or many."""
    if content[1] - content[0] > MAX_SENTENCE_CHARS or _NUMBERED.match(text, *content):
        return True
    plain = _FORMULA.sub(" ", text[content[0] : content[1]]).lstrip()
    words = _WORD.findall(plain)
    return len(words) > MAX_WORDS_BEHIND_HASHES or (bool(words) and plain[:1].isalpha())
