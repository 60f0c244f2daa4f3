r"""Pairs of questions that share most of their words: MinHash to propose, the exact Jaccard similarity to decide.

Most near duplicates among mathematics problems are *not* the same problem, since one changed number makes another one.
They are therefore reported, and dropped only on request and only where the answers agree.

Similarity is the Jaccard index of the sets of three-word runs. A pair of similarity 0.8 is proposed with probability
``1 - (1 - 0.8 ** 5) ** 20 = 0.9996``, one of 0.3 with 0.05 (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, 3.4). The bands are sorted rather than kept in hash tables, which holds memory at 160 bytes a question; a
library with tables in Python needs some gigabytes at a million questions, which is why none is used here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_prep.text_normalisation import ngram_hashes, word_hashes, word_lists

SHINGLE_WORDS = 3
THRESHOLD = 0.8
BANDS = 20
ROWS_PER_BAND = 5
# Within a group of candidates, each member is compared with that many that follow it.
NEIGHBOURS = 20
MAX_CANDIDATE_PAIRS = 1_000_000
PAIRS_AT_ONCE = 100_000


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs ``(first, second)`` of question numbers, first < second, and their Jaccard similarity.

    `complete` is `False` if there were more than `MAX_CANDIDATE_PAIRS` candidates and the rest was left.
    """

    pairs: list[tuple[int, int, float]]
    complete: bool


def find_near_duplicates(batches: Iterable[tuple[np.ndarray, pa.Array]], count: int) -> NearDuplicates:
    """All proposed pairs of similarity `THRESHOLD` and above.

    Args:
        batches (`Iterable[tuple[np.ndarray, pa.Array]]`): question numbers (int64) and normalised texts; read several
            times, so it has to be a list or an object that can be iterated again.
        count (`int`): number of questions in all batches together.

    Questions of fewer than three words are left out.
    """
    numbers = np.zeros(count, np.int64)
    bands = np.zeros((count, BANDS), np.uint64)
    filled = 0
    for batch_numbers, signatures in _band_signatures(batches):
        numbers[filled : filled + len(batch_numbers)] = batch_numbers
        bands[filled : filled + len(batch_numbers)] = signatures
        filled += len(batch_numbers)
    candidates, complete = _candidate_pairs(numbers[:filled], bands[:filled])
    del bands
    pairs = []
    for start in range(0, len(candidates), PAIRS_AT_ONCE):
        chunk = candidates[start : start + PAIRS_AT_ONCE]
        shingles = _shingle_sets(batches, np.unique(chunk))
        for first, second in chunk.tolist():
            shared = len(np.intersect1d(shingles[first], shingles[second], assume_unique=True))
            similarity = shared / (len(shingles[first]) + len(shingles[second]) - shared)
            if similarity >= THRESHOLD:
                pairs.append((first, second, round(similarity, 4)))
    return NearDuplicates(pairs, complete)


def _shingles(normalised: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Shingle hashes (uint64), and the place in `normalised` of the text that each belongs to."""
    hashes, text, _ = ngram_hashes(*word_hashes(word_lists(normalised)), SHINGLE_WORDS)
    return hashes, text


def _band_signatures(batches: Iterable[tuple[np.ndarray, pa.Array]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    multipliers, increments = _hash_family(BANDS * ROWS_PER_BAND)
    for numbers, normalised in batches:
        hashes, text = _shingles(normalised)
        present, starts = np.unique(text, return_index=True)
        bands = np.zeros((len(present), BANDS), np.uint64)
        if len(present):
            with np.errstate(over="ignore"):
                for index in range(BANDS * ROWS_PER_BAND):
                    mixed = hashes * multipliers[index] + increments[index]
                    mixed ^= mixed >> np.uint64(32)
                    minima = np.minimum.reduceat(mixed, starts)
                    column = bands[:, index // ROWS_PER_BAND]
                    column *= np.uint64(0x100000001B3)
                    column += minima
        yield np.asarray(numbers)[present], bands


def _hash_family(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Odd multipliers and increments from the splitmix64 sequence: the same with every version of every library."""
    with np.errstate(over="ignore"):
        state = np.arange(1, 2 * count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state[:count] | np.uint64(1), state[count:]


def _candidate_pairs(numbers: np.ndarray, bands: np.ndarray) -> tuple[np.ndarray, bool]:
    """Pairs (int64, shape (pairs, 2)) that agree in a band, in ascending order, and whether these are all."""
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


def _shingle_sets(batches: Iterable[tuple[np.ndarray, pa.Array]], wanted: np.ndarray) -> dict[int, np.ndarray]:
    sets: dict[int, np.ndarray] = {}
    for numbers, normalised in batches:
        places = np.flatnonzero(np.isin(numbers, wanted))
        if len(places):
            hashes, text = _shingles(normalised.take(pa.array(places)))
            edges = np.searchsorted(text, np.arange(len(places) + 1))
            for index, number in enumerate(numbers[places].tolist()):
                sets[number] = np.unique(hashes[edges[index] : edges[index + 1]])
    return sets
