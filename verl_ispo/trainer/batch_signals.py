"""What the trainer knows of a batch, for estimators that need more than the rewards verl hands them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch


class MissingBatchSignalsError(RuntimeError):
    """An estimator that needs the batch's log-probs or entropy was called where nobody provides them."""


@dataclass(frozen=True)
class BatchSignals:
    """One update's batch under the rollout policy, detached; rows as verl hands them to the estimator.

    verl's padding rows are among them, with an all-zero mask and a group of their own.

    Attributes:
        correct: the verifier's verdict, `(batch,)` bool; false for padding rows.
        log_prob: sampled tokens' log-probs, `(batch, response_length)` float32.
        entropy: entropy of the next-token distribution, nats, same shape.
        prompt_log_prob: log-probs of the prompt's tokens but the first, `(batch, prompt_length)` float32, left-aligned.
        prompt_mask: `(batch, prompt_length)` bool.
    """

    correct: torch.Tensor
    log_prob: torch.Tensor
    entropy: torch.Tensor
    prompt_log_prob: torch.Tensor
    prompt_mask: torch.Tensor


_current: ContextVar[BatchSignals | None] = ContextVar("batch_signals", default=None)


@contextmanager
def batch_signals(signals: BatchSignals) -> Iterator[None]:
    """Inside, `current_batch_signals` gives these. Entered by the ISPO trainer alone."""
    token = _current.set(signals)
    try:
        yield
    finally:
        _current.reset(token)


def current_batch_signals(estimator: str) -> BatchSignals:
    """The signals of the batch whose advantage is being computed.

    Raises:
        MissingBatchSignalsError: outside of an ISPO trainer mode; the message names the key to set.
    """
    signals = _current.get()
    if signals is None:
        raise MissingBatchSignalsError(
            f"algorithm.adv_estimator={estimator} needs entropy and log-probs, which stock trainer modes do not hand "
            "to an estimator. Set trainer.v1.trainer_mode to ispo_sync, ispo_colocate_async or ispo_separate_async "
            "(with trainer.use_v1=true)."
        )
    return signals
