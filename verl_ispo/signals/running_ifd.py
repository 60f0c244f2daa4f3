"""Conditional IFD compared with its running mean: centring and capping (both ours, so that reasoning is not lost)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from verl_ispo.config.ispo_config import ISPOConfig


@dataclass(frozen=True)
class RunningIFD:
    """Exponential means of Conditional IFD over the steps before this one, by outcome; nats per token.

    Attributes:
        right: of correct rollouts; `None` until one with an answer has been seen.
        wrong: of incorrect rollouts; `None` likewise.
    """

    right: float | None = None
    wrong: float | None = None

    def updated(self, ifd: torch.Tensor, correct: torch.Tensor, answer_found: torch.Tensor, decay: float) -> RunningIFD:
        """With one more batch: ``decay * before + (1 - decay) * mean of the batch``; the first mean is taken as is.

        Args:
            ifd (`torch.Tensor` of shape `(batch,)`): as measured, neither centred nor capped.
            correct (`torch.Tensor` of shape `(batch,)`, bool).
            answer_found (`torch.Tensor` of shape `(batch,)`, bool): rows without an answer have no IFD.
            decay (`float`): in [0, 1).
        """
        return RunningIFD(
            right=_decayed(self.right, ifd[correct & answer_found], decay),
            wrong=_decayed(self.wrong, ifd[~correct & answer_found], decay),
        )


def centred_ifd(
    ifd: torch.Tensor, correct: torch.Tensor, answer_found: torch.Tensor, running: RunningIFD
) -> torch.Tensor:
    """IFD minus its running mean for that outcome, so that having an answer is neither rewarded nor punished as such.

    A rollout without an answer keeps its 0, which is then the usual value and not an extreme one. Before a mean is
    known, IFD stays as it is. All of shape `(batch,)`.
    """
    usual = torch.where(correct, running.right or 0.0, running.wrong or 0.0)
    return torch.where(answer_found, ifd - usual, ifd)


def capped_ifd(ifd: torch.Tensor, running: RunningIFD) -> torch.Tensor:
    """IFD, at most the running mean of correct rollouts: what exceeds it does not count, `(batch,)`."""
    return ifd if running.right is None else ifd.clamp(max=running.right)


def adjusted_ifd(
    ifd: torch.Tensor, correct: torch.Tensor, answer_found: torch.Tensor, running: RunningIFD, config: ISPOConfig
) -> torch.Tensor:
    """IFD as ``ifd_reference`` says: as measured (the paper), centred or capped, `(batch,)`."""
    if config.ifd_reference == "running_mean":
        return centred_ifd(ifd, correct, answer_found, running)
    if config.ifd_reference == "right_rollouts":
        return capped_ifd(ifd, running)
    return ifd


def _decayed(before: float | None, values: torch.Tensor, decay: float) -> float | None:
    if not values.numel():
        return before
    mean = float(values.double().mean())
    return mean if before is None else decay * before + (1 - decay) * mean
