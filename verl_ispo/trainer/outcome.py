"""Outcome and correctness from whatever the scorer returned (two things: scorers give 0/1, -1/+1 or shaped scores)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class ScorerOutputError(ValueError):
    """A score that does not tell correct from incorrect."""


def correctness(scores: torch.Tensor, reward_extra_infos: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """Whether each rollout is correct: the verifier's ``acc`` where there is one, else the score itself.

    A value counts as a verdict when it is a bool, 0 or 1, or -1 or +1 (verl's reward managers also copy a plain score
    into ``acc``).

    Args:
        scores (`torch.Tensor` of shape `(batch,)`): outcome rewards.
        reward_extra_infos (`Sequence[Mapping]`): what the reward function returned beside each score.

    Returns:
        `torch.Tensor` of shape `(batch,)`, bool.

    Raises:
        ScorerOutputError: some value is none of these, or 0 and -1 both occur among scores, so that 0 is no verdict.
    """
    verdicts = [
        _as_number(info["acc"]) if info.get("acc") is not None else score
        for score, info in zip(scores.tolist(), reward_extra_infos, strict=True)
    ]
    seen = set(verdicts)
    if not (seen <= {0.0, 1.0} or seen <= {-1.0, 1.0}):
        strange = sorted(seen - {0.0, 1.0}) or sorted(seen)
        raise ScorerOutputError(
            f"the scorer's values {strange[:5]} do not tell correct from incorrect: ISPO needs 0/1, -1/+1, or a scorer "
            "that returns a dict with 'acc' (true or false) beside a shaped 'score'. Change the function that "
            "reward.custom_reward_function names."
        )
    return torch.tensor([verdict == 1.0 for verdict in verdicts], dtype=torch.bool)


def _as_number(acc: Any) -> float:
    try:
        return float(acc)
    except (TypeError, ValueError) as error:
        raise ScorerOutputError(
            f"the scorer's 'acc' is {acc!r}: it has to be true or false, 0 or 1, or -1 or +1. Change the function that "
            "reward.custom_reward_function names."
        ) from error
