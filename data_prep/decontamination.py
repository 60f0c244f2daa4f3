r"""Which training questions overlap with benchmark questions.

Both sides are compared as words (`text_normalization`). A training question is contaminated by a benchmark question if

1. they share runs of `n` words (13 by default, as in GPT-3, arXiv 2005.14165, appendix C), and these runs together
   cover at least `min_overlap` (half by default) of the words of one of the two, or
2. the benchmark question is shorter than `n` words and the training question contains all of it in order. A benchmark
   question of fewer than `MIN_CONTAINED_WORDS` words has to be the whole training question.

The covered share tells a copied question from a common phrase: "m and n are relatively prime positive integers, find
m + n" ends many AIME problems. Qwen2.5-Math (arXiv 2409.12122) requires a long common subsequence for the same reason.
The half is ours. ``min_overlap = 0`` is GPT-3's rule: any shared run.

Translations, rewordings that break every run, and problems with other numbers are not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.benchmark_names import LATER_BENCHMARKS, PAPER_BENCHMARKS
from data_prep.columns import choose_question_column, question_text
from data_prep.prompt_templates import unwrap_dapo
from data_prep.sources import local_parts
from data_prep.text_normalization import ngram_hashes, normalized_texts, word_hashes, word_lists
from verl_ispo.user_error import UserError

DEFAULT_NGRAM_WORDS = 13
MIN_CONTAINED_WORDS = 5
DEFAULT_MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class BenchmarkQuestions:
    """The questions of one benchmark, and where they came from."""

    name: str
    questions: list[str]
    identity: dict[str, Any]


@dataclass(frozen=True)
class Match:
    """A training question that shares a run with a benchmark question.

    Attributes:
        text (`int`): index of the training question in the given texts.
        benchmark (`str`), benchmark_question (`str`): the problem that it overlaps with most.
        overlap (`float`): share of a question's words that shared runs cover; the larger share of the two questions.
        shared_words (`str`): the first run that both contain.
        contaminated (`bool`): whether the overlap is large enough to drop the question.
    """

    text: int
    benchmark: str
    benchmark_question: str
    overlap: float
    shared_words: str
    contaminated: bool


def load_benchmarks(save_dir: Path, files: Sequence[Path]) -> list[BenchmarkQuestions]:
    """The benchmarks prepared in `save_dir` and those in `files`; a file replaces a prepared one of its name.

    A prepared file is named by its ``data_source`` column, any other one by its file name without the ending.

    Raises:
        UserError: if a file cannot be read or holds no question.
    """
    known = [save_dir / f"{name}.parquet" for name in (*PAPER_BENCHMARKS, *LATER_BENCHMARKS)]
    prepared = [path for path in known if path.is_file()]
    by_name = {}
    for path in [*prepared, *files]:
        for part in local_parts(path):
            column = choose_question_column(part.names, part.label)
            is_prepared = "data_source" in part.names and "extra_info.question" in part.names
            columns = [column, "data_source"] if is_prepared else [column]
            questions, name = [], path.stem
            for batch in part.read(columns):
                questions.extend(question_text(cell) for cell in batch.columns[0])
                if is_prepared:
                    name = batch.columns[1][0]
            questions = [unwrap_dapo(question)[0].strip() for question in questions if question]
            if not questions:
                raise UserError(f"{part.label}: no question found to decontaminate against")
            by_name[name] = BenchmarkQuestions(name, questions, part.identity)
    return [by_name[name] for name in sorted(by_name)]


@dataclass(frozen=True)
class _Run:
    """A run of words in a benchmark question: the question's number and the index of the run's first word."""

    question: int
    start: int


class BenchmarkIndex:
    """Runs of words of all benchmark questions, for looking up many training questions at once.

    Args:
        benchmarks (`Sequence[BenchmarkQuestions]`): what to compare with.
        n (`int`, *optional*, defaults to 13): words in a run.
        min_overlap (`float`, *optional*, defaults to 0.5): share of words that shared runs have to cover.
    """

    def __init__(
        self,
        benchmarks: Sequence[BenchmarkQuestions],
        n: int = DEFAULT_NGRAM_WORDS,
        min_overlap: float = DEFAULT_MIN_OVERLAP,
    ) -> None:
        self.n = n
        self.min_overlap = min_overlap
        sources: dict[str, tuple[str, str]] = {}  # by normalized text: benchmark name and question
        for benchmark in benchmarks:
            texts = normalized_texts(benchmark.questions).to_pylist()
            for text, question in zip(texts, benchmark.questions, strict=True):
                sources.setdefault(text, (benchmark.name, question))
        self.sources = list(sources.values())
        lists = word_lists(pa.array(list(sources), pa.string()))
        self.words: list[list[str]] = lists.to_pylist()
        hashes, offsets = word_hashes(lists)
        self._lookups: dict[int, dict[int, list[_Run]]] = {}
        lengths = np.minimum(np.diff(offsets), n)  # of the runs that a question is looked up by
        for length in np.unique(lengths).tolist():
            lookup = self._lookups.setdefault(length, {})
            runs, questions, starts = ngram_hashes(hashes, offsets, length)
            usable = lengths[questions] == length
            for run, question, start in zip(
                runs[usable].tolist(), questions[usable].tolist(), starts[usable].tolist(), strict=True
            ):
                lookup.setdefault(run, []).append(_Run(question, start))
        self._known = {length: np.array(sorted(lookup), np.uint64) for length, lookup in self._lookups.items()}

    def matches(self, normalized: pa.Array) -> list[Match]:
        """The training questions, given by their normalized texts, that share a run with a benchmark question.

        There is at most one match for each; where several benchmark questions match, the one with the largest overlap
        is named; among equals, the first.
        """
        lists = word_lists(normalized)
        hashes, offsets = word_hashes(lists)
        words_of: dict[int, list[str]] = {}
        shared: dict[int, dict[int, list[tuple[int, int, int]]]] = {}
        for length, lookup in self._lookups.items():
            runs, texts, starts = ngram_hashes(hashes, offsets, length)
            for position in np.flatnonzero(np.isin(runs, self._known[length])).tolist():
                text, start = int(texts[position]), int(starts[position])
                if text not in words_of:
                    words_of[text] = lists[text].as_py()
                run = words_of[text][start : start + length]
                for known in lookup[int(runs[position])]:
                    # Equal hashes only propose; equal words decide.
                    if self.words[known.question][known.start : known.start + length] == run:
                        spans = shared.setdefault(text, {}).setdefault(known.question, [])
                        spans.append((start, known.start, length))
        found = []
        for text in sorted(shared):
            candidates = [
                self._match(text, words_of[text], question, spans) for question, spans in sorted(shared[text].items())
            ]
            found.append(max(candidates, key=lambda match: (match.contaminated, match.overlap)))
        return found

    def _match(self, text: int, words: list[str], question: int, spans: list[tuple[int, int, int]]) -> Match:
        in_training = {start + offset for start, _, length in spans for offset in range(length)}
        in_benchmark = {start + offset for _, start, length in spans for offset in range(length)}
        benchmark_words = self.words[question]
        overlap = max(len(in_training) / len(words), len(in_benchmark) / len(benchmark_words))
        too_short = len(benchmark_words) < MIN_CONTAINED_WORDS and len(words) > len(benchmark_words)
        start, _, length = spans[0]
        return Match(
            text,
            *self.sources[question],
            overlap=round(overlap, 3),
            shared_words=" ".join(words[start : start + length]),
            contaminated=overlap >= self.min_overlap and not too_short,
        )
