"""Every key is tried on the grader, in parallel: a key that it cannot use is no key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from verl_ispo.answers.ground_truth import GroundTruth
from verl_ispo.grading.key_trial import FOREIGN_ANSWERS, key_fault

RULE = (
    f"graded as an answer to itself, which has to be correct, and against {FOREIGN_ANSWERS[0]}, which has to be wrong"
)


class KeyTrials:
    """Faults of keys; a key that comes again is not tried again.

    Args:
        log_base (`str`): what a bare logarithm in the keys is to, see `schema.output_rows`.
        progress (`tqdm`): moved on by one for each key.
    """

    def __init__(self, log_base: str, progress: tqdm) -> None:
        self.log_base = log_base
        self._progress = progress
        self._workers = max(1, min(8, len(os.sched_getaffinity(0))))
        self._known: dict[GroundTruth, str] = {}

    def faults(self, keys: Sequence[GroundTruth]) -> Iterator[str]:
        """What is wrong with each key, empty where nothing is; see `verl_ispo.grading.key_trial.key_fault`."""
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        # The caller's process decides most keys, so a few threads keep the workers busy with the rest.
        with ThreadPoolExecutor(2 * self._workers) as pool:
            for key, fault in zip(new, pool.map(self._try, new), strict=True):
                self._known[key] = fault
        for key in keys:
            self._progress.update()
            yield self._known[key]

    def _try(self, key: GroundTruth) -> str:
        info = {
            "unit": key.unit,
            "tolerance": key.tolerance,
            "multiple_answers": key.multiple_answers,
            "log_base": self.log_base,
        }
        return key_fault(key.text, info, workers=self._workers)


def fault_kind(fault: str) -> str:
    """The kind of a fault, by which the card counts: ``error``, ``timeout``, ``rejects itself``, ``accepts ...``."""
    return fault.partition(":")[0]
