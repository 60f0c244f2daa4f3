"""Inverted reward, a control: GRPO's advantage on 1 - R, R being the verifier's verdict.

Every incorrect rollout is rewarded. arXiv 2506.10947 rewards wrong labels instead, those that agree with the model's
most frequent incorrect answer; that needs other data and is not this.

Source: ours. Without a KL penalty in the reward it is GRPO on 0/1 scores with the sign turned, except for a rollout
alone in its group, which has 1 - R. All-correct and all-incorrect groups get nothing.
"""

from __future__ import annotations

import torch

from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.methods.replaced_reward import advantage_of_reward


def inverted_reward(correct: torch.Tensor) -> torch.Tensor:
    """1 - R, `(batch,)` float64.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict, R.
    """
    return 1.0 - correct.double()


def _advantage(batch: MethodBatch, settings: None) -> torch.Tensor:
    return advantage_of_reward(inverted_reward(batch.correct), batch)


METHOD = Method(
    name="inverted_reward",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT}),
    reward="1 minus the verifier's verdict",
)
