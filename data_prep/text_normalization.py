r"""Two normal forms of a question, computed for whole columns at once.

*Normalized text* decides whether two questions are the same. It removes what never changes a problem: letter case,
white space without meaning, math delimiters, ``\left`` and ``\right``, ``\dfrac`` against ``\frac``,
typographic quotes and dashes, invisible characters, punctuation at the end. It keeps every sign and digit: "x - 5" and
"x + 5" differ, and so do "1 1/2" and "11/2".

*Words* are for n-gram comparison: the runs of letters or digits of the normalized text, LaTeX commands count as
words, and each Chinese or Japanese character is a word of its own. Operators are dropped.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

RULE = (
    "NFC, lower case; math delimiters, \\left/\\right, spacing commands and invisible characters off; "
    "\\dfrac = \\frac; quotes and dashes unified; white space only between letters or digits; no punctuation at the end"
)

_REPLACEMENTS = (
    (r"[\x{00ad}\x{200b}-\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2069}\x{feff}\x{0000}-\x{0008}\x{000e}-\x{001f}]", ""),
    (r"[\x{201c}\x{201d}\x{201e}]|''|``", '"'),
    (r"[\x{2018}\x{2019}]", "'"),
    (r"[\x{2010}-\x{2015}\x{2212}]", "-"),
    (r"\\[dtc]frac([^a-z]|$)", r"\\frac\1"),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    (r"\\(?:left|right|displaystyle|textstyle|bigl|bigr|big)([^a-z]|$)", r"\1"),
    (r"\\([lg])eq([^a-z]|$)", r"\\\1e\2"),
    (r"\\q?quad([^a-z]|$)", r" \1"),
    (r"\\[,;:!> ]|~", " "),
    (r"\\?\$|\\[()\[\]]", " "),
    (r"[\s\p{Z}]+", " "),
    (r" ?([^\p{L}\p{N} ]) ?", r"\1"),
    (r"^ +|[ .?!:;]+$", ""),
)
_WORD_REPLACEMENTS = (
    (r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}])", r" \1 "),
    (r"(\p{N})(\p{L})", r"\1 \2"),
    (r"(\p{L})(\p{N})", r"\1 \2"),
    (r"[^\p{L}\p{N}]+", " "),
    (r"^ +| +$", ""),
)

# An odd constant: multiplication by it permutes the 64-bit integers.
_BASE = np.uint64(0x9E3779B97F4A7C15)


def normalized_texts(questions: list[str] | pa.Array) -> pa.Array:
    """Normalized text of each question."""
    texts = pa.array(_encodable(questions), pa.string()) if isinstance(questions, list) else questions
    texts = pc.utf8_lower(pc.utf8_normalize(texts, form="NFC"))
    for pattern, replacement in _REPLACEMENTS:
        texts = pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)
    return texts


def word_lists(normalized: pa.Array) -> pa.ListArray:
    """Words of each normalized text; a text without words gives one empty word."""
    for pattern, replacement in _WORD_REPLACEMENTS:
        normalized = pc.replace_substring_regex(normalized, pattern=pattern, replacement=replacement)
    return pc.split_pattern(normalized, " ")


def word_hashes(words: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (uint64) of all words in order, and the offsets (int64) at which each text begins and the last one ends.

    The hash of a word depends on nothing but the word.
    """
    coded = pc.dictionary_encode(words.flatten())
    of_distinct = pd.util.hash_array(coded.dictionary.to_numpy(zero_copy_only=False), categorize=False)
    lengths = pc.list_value_length(words).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return of_distinct[coded.indices.to_numpy()], offsets


def ngram_hashes(hashes: np.ndarray, offsets: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of all runs of `n` words within one text.

    Args:
        hashes (`np.ndarray`): word hashes, uint64, shape (words,).
        offsets (`np.ndarray`): int64, shape (texts + 1,).
        n (`int`): run length.

    Returns:
        Hashes (uint64), the text (int64) each belongs to, and the index of its first word in that text (int64).
    """
    runs = np.maximum(np.diff(offsets) - n + 1, 0)
    text_of_run = np.repeat(np.arange(len(runs)), runs)
    start = np.arange(len(text_of_run)) - np.repeat(np.cumsum(runs) - runs, runs)
    first_word = offsets[:-1][text_of_run] + start
    combined = np.zeros(len(first_word), np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(n):
            combined = combined * _BASE + hashes[first_word + offset]
    return combined, text_of_run, start


def digest(text: str) -> bytes:
    """Sixteen bytes that stand for a text; two texts share them with a chance below 1e-26 among two million."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _encodable(texts: list[str]) -> list[str]:
    """Lone surrogates, which JSON can carry and UTF-8 cannot, become question marks."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return [text.encode("utf-8", "replace").decode() for text in texts]
    return texts
