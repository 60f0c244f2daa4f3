"""What the trainer knows of a step, for the estimator that verl calls: one value, valid inside a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.methods.method import PrefixScores
from verl_ispo.signals.diagnostics import ObservedBatch


@dataclass(frozen=True)
class KnownOfBatch:
    """The fields of `MethodBatch` that verl does not hand to an estimator; rows as verl has them.

    What the method has not declared as a need is `None`.
    """

    correct: torch.Tensor | None = None
    log_prob: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    prompt_log_prob: torch.Tensor | None = None
    prompt_mask: torch.Tensor | None = None
    answer_texts: tuple[str | None, ...] | None = None
    ispo_signals: ObservedBatch | None = None
    ref_log_prob: torch.Tensor | None = None
    response_ids: torch.Tensor | None = None
    prompt_keys: tuple[str, ...] | None = None
    prefix_scores: PrefixScores | None = None
    expert: torch.Tensor | None = None
    step: int = 1
    total_steps: int = 1
    state: Any | None = None


_known: ContextVar[KnownOfBatch | None] = ContextVar("known_of_batch", default=None)


@contextmanager
def handed_over(known: KnownOfBatch) -> Iterator[None]:
    """Inside the block, `handed_over_batch` returns ``known``. Only the ISPO trainer enters it."""
    token = _known.set(known)
    try:
        yield
    finally:
        _known.reset(token)


def handed_over_batch() -> KnownOfBatch | None:
    """What the trainer knows of the batch whose advantage is being computed; `None` in verl's stock trainer modes."""
    return _known.get()
