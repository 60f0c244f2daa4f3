"""Majority vote, a control without labels (TTRL, arXiv 2504.16084; arXiv 2506.10947).

GRPO's advantage on 1 for a rollout whose answer is the most frequent one of its group, 0 for the others. The vote is
the group's own, taken anew at every step, as in TTRL; arXiv 2506.10947 takes 64 rollouts of the start model instead.

Source: summaries by others, and TTRL's description of its rule. Ours: which answers are the same (`answer_votes`; TTRL
grades against the winner), that answers with equally many votes all win (the authors' code takes the first), and that
a rollout without an answer neither votes nor wins. A group whose answers are all the same, or all different, or that
has none, gets nothing; a rollout alone in its group has 1 with an answer and 0 without.
"""

from __future__ import annotations

import torch

from verl_ispo.methods.answer_votes import votes_of_rollouts
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.methods.replaced_reward import advantage_of_reward, refuse_filter_by_verdict


def majority_vote_reward(batch: MethodBatch) -> torch.Tensor:
    """1 for a rollout whose answer no other answer of its group outvotes, `(batch,)` float64."""
    votes, most = votes_of_rollouts(batch)
    wins = [own > 0 and own == best for own, best in zip(votes, most, strict=True)]
    return torch.tensor(wins, dtype=torch.float64, device=batch.response_mask.device)


def _advantage(batch: MethodBatch, settings: None) -> torch.Tensor:
    return advantage_of_reward(majority_vote_reward(batch), batch)


METHOD = Method(
    name="majority_vote",
    advantage=_advantage,
    needs=frozenset({Need.ANSWER_TEXT}),
    contradictions=refuse_filter_by_verdict,
    reward="agreement with the group's most frequent answer",
)
