"""EMPO (arXiv 2504.05812): without labels, an answer is rewarded by how many of its group's rollouts give it.

    reward = rollouts with the same answer / rollouts of the group; 0 without an answer, and for the whole group where
    the entropy of the answers is ln(rollouts), that is, where no two rollouts agree

and GRPO's advantage is taken of it. Source: the authors' code (QingyangZhang/EMPO at c5eccd400ba7), which compares
answers with a symbolic verifier. Ours: which answers are the same (`answer_votes`), that rollouts without an answer
agree with nobody, and that the entropy's threshold is read as "no two agree", which rounding cannot move.

Groups whose answers are all the same, or all different, get nothing, and neither does a rollout alone in its group.
"""

from __future__ import annotations

import torch

from verl_ispo.methods.answer_votes import votes_of_rollouts
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.methods.replaced_reward import advantage_of_reward, refuse_filter_by_verdict


def empo_reward(batch: MethodBatch) -> torch.Tensor:
    """Share of the group's rollouts with the same answer, `(batch,)` float64; 0 where no two of the group agree."""
    votes, most = votes_of_rollouts(batch)
    sizes = batch.groups.size[batch.groups.ids].tolist()
    shares = [own / size if best > 1 else 0.0 for own, best, size in zip(votes, most, sizes, strict=True)]
    return torch.tensor(shares, dtype=torch.float64, device=batch.response_mask.device)


def _advantage(batch: MethodBatch, settings: None) -> torch.Tensor:
    return advantage_of_reward(empo_reward(batch), batch)


METHOD = Method(
    name="empo",
    advantage=_advantage,
    needs=frozenset({Need.ANSWER_TEXT}),
    contradictions=refuse_filter_by_verdict,
    reward="the share of the group's rollouts with the same answer",
)
