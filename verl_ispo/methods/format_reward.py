"""Format reward, a control (arXiv 2506.10947): GRPO's advantage on 1 for a rollout with an answer, whatever it says.

An answer counts where the grader would look for it: in the format that the prompt asks for
(``extra_info.answer_format``) or that ``algorithm.ispo.answer_format`` names. In the paper it is a box that is not
empty.

Source: summaries by others, which agree. A group in which all rollouts have an answer, or none has, gets nothing,
whatever is correct; a rollout alone in its group has its reward as its advantage.
"""

from __future__ import annotations

import torch

from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.methods.replaced_reward import advantage_of_reward, refuse_filter_by_verdict


def format_reward(batch: MethodBatch) -> torch.Tensor:
    """1 for a rollout with an answer, `(batch,)` float64."""
    has_answer = [text is not None for text in batch.answer_texts]
    return torch.tensor(has_answer, dtype=torch.float64, device=batch.response_mask.device)


def _advantage(batch: MethodBatch, settings: None) -> torch.Tensor:
    return advantage_of_reward(format_reward(batch), batch)


METHOD = Method(
    name="format_reward",
    advantage=_advantage,
    needs=frozenset({Need.ANSWER_TEXT}),
    contradictions=refuse_filter_by_verdict,
    reward="whether there is an answer in the required format",
)
