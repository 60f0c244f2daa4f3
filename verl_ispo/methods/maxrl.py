"""MaxRL (arXiv 2602.02710): the advantage relative to the group's accuracy, A = (R - mean) / mean.

Source: implementations by others that agree (AReaL, TRL, prime-rl). R is the verifier's verdict (ours: the rule is for
0 and 1, and a mean of -1/+1 scores could be 0 or negative). All-incorrect groups get 0, since no mean can be divided
by; all-correct groups get 0 as in GRPO; so does a group of one rollout, whose mean is its own outcome (ours: verl's
GRPO keeps the score there).
"""

from __future__ import annotations

import torch

from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.groups import RolloutGroups


def maxrl_advantage(correct: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """(R - mean) / mean inside each group, 0 in groups without a correct rollout.

    With k of G rollouts correct it is G/k - 1 for a correct rollout and -1 for an incorrect one.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        groups (`RolloutGroups`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64.
    """
    outcome = correct.double()
    mean = groups.reduce(outcome, "mean")[groups.ids]
    return torch.where(mean > 0, (outcome - mean) / mean.where(mean > 0, 1.0), 0.0)


def _advantage(batch: MethodBatch, settings: None) -> torch.Tensor:
    return maxrl_advantage(batch.correct, batch.groups)


METHOD = Method(name="maxrl", advantage=_advantage, needs=frozenset({Need.CORRECT}))
