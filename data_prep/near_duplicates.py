r"""Pairs of questions that share most of their words: MinHash proposes them, the exact Jaccard similarity decides.

Most near duplicates among mathematics problems are *not* the same problem, since one changed number makes a different
one. They are therefore only reported; they are dropped on request, and only where the answers agree.

Similarity is the Jaccard index of the sets of three-word runs. A pair of similarity 0.8 is proposed with probability
``1 - (1 - 0.8 ** 5) ** 20 = 0.9996``, one of 0.3 with 0.05 (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, 3.4). The signatures are datasketch's. Its tables of bands are not used: they need 8 KB per question, and the
sorted bands here 160 bytes, independent of the questions' content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasketch import MinHash

from data_prep.text_normalization import ngram_hashes, word_hashes, word_lists

SHINGLE_WORDS = 3
THRESHOLD = 0.8
BANDS = 20
ROWS_PER_BAND = 5
# Within a group of candidates, each member is compared with this many that follow it.
NEIGHBOURS = 20
MAX_CANDIDATE_PAIRS = 1_000_000
PAIRS_AT_ONCE = 100_000


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs ``(first, second)`` of question numbers, first < second, and their Jaccard similarity.

    `complete` is `False` if there were more than `MAX_CANDIDATE_PAIRS` candidates and the rest was not compared.
    """

    pairs: list[tuple[int, int, float]]
    complete: bool


def find_near_duplicates(batches: Iterable[tuple[np.ndarray, pa.Array]], count: int) -> NearDuplicates:
    """All proposed pairs of similarity `THRESHOLD` and above.

    Args:
        batches (`Iterable[tuple[np.ndarray, pa.Array]]`): question numbers (int64) and normalized texts; read several
            times, so it has to be a list or an object that can be iterated again.
        count (`int`): number of questions in all batches together.

    Questions of fewer than three words are left out.
    """
    numbers, bands = np.zeros(count, np.int64), np.zeros((count, BANDS), np.uint64)
    filled = 0
    empty = MinHash(BANDS * ROWS_PER_BAND, hashfunc=int, scheme="affine64")
    for number, shingles in _shingle_sets(batches):
        signature = empty.copy()
        signature.update_batch(shingles)
        # Equal minima have equal sums. Others have equal sums with a chance of 2 ** -64, and that only proposes a pair.
        bands[filled] = signature.hashvalues.reshape(BANDS, ROWS_PER_BAND).sum(axis=1)
        numbers[filled] = number
        filled += 1
    candidates, complete = _candidate_pairs(numbers[:filled], bands[:filled])
    del bands
    pairs = []
    for start in range(0, len(candidates), PAIRS_AT_ONCE):
        chunk = candidates[start : start + PAIRS_AT_ONCE]
        shingles = dict(_shingle_sets(batches, np.unique(chunk)))
        for first, second in chunk.tolist():
            shared = len(np.intersect1d(shingles[first], shingles[second], assume_unique=True))
            similarity = shared / (len(shingles[first]) + len(shingles[second]) - shared)
            if similarity >= THRESHOLD:
                pairs.append((first, second, round(similarity, 4)))
    return NearDuplicates(pairs, complete)


def _shingle_sets(
    batches: Iterable[tuple[np.ndarray, pa.Array]], wanted: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and distinct shingle hashes (uint64) of each question that has any; of those in ``wanted`` if given."""
    for numbers, normalized in batches:
        if wanted is not None:
            chosen = np.flatnonzero(np.isin(numbers, wanted))
            numbers, normalized = numbers[chosen], normalized.take(pa.array(chosen))
        hashes, text, _ = ngram_hashes(*word_hashes(word_lists(normalized)), SHINGLE_WORDS)
        edges = np.searchsorted(text, np.arange(len(numbers) + 1)).tolist()
        for number, start, end in zip(numbers.tolist(), edges, edges[1:], strict=False):
            if start < end:
                yield number, np.unique(hashes[start:end])


def _candidate_pairs(numbers: np.ndarray, bands: np.ndarray) -> tuple[np.ndarray, bool]:
    """Pairs (int64, shape (pairs, 2)) that agree in a band, in ascending order, and whether the list is complete."""
    found = np.zeros(0, np.int64)
    complete = True
    for band in bands.T:
        order = np.argsort(band, kind="stable")  # by number within a group
        in_order = band[order]
        for step in range(1, NEIGHBOURS + 1):
            equal = np.flatnonzero(in_order[step:] == in_order[:-step])
            if not len(equal):
                break
            pairs = numbers[order[equal]] << 32 | numbers[order[equal + step]]
            found = np.union1d(found, pairs)
            if len(found) > MAX_CANDIDATE_PAIRS:
                found, complete = found[:MAX_CANDIDATE_PAIRS], False
    return np.stack([found >> 32, found & 0xFFFFFFFF], axis=1), complete
