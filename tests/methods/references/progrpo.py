"""ProGRPO (arXiv 2602.05281): GRPO's advantage plus a (c(q) - c(o)), except where nobody in the group is correct."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from verl_ispo.methods.method import MethodBatch


def confidence(log_prob: Sequence[float], fraction: float) -> float:
    """exp(mean log p) over the least likely share of the tokens, rounded up."""
    count = math.ceil(Fraction(str(fraction)) * len(log_prob))
    least_likely = sorted(log_prob)[:count]
    return math.exp(math.fsum(least_likely) / count)


def term(response: Sequence[float], prompt: Sequence[float], group: Sequence[bool], settings: Any) -> float:
    """a (c(q) - c(o)) of one rollout, from its log-probs, its prompt's, and the verdicts of its group."""
    if not any(group) or (settings.all_right_groups == "skip" and all(group)) or not response or not prompt:
        return 0.0
    fraction = settings.low_probability_fraction
    return settings.confidence_weight * (confidence(prompt, fraction) - confidence(response, fraction))


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, correct, mask = batch.groups.ids.tolist(), batch.correct.tolist(), batch.response_mask.tolist()
    prompts, prompt_mask = batch.prompt_log_prob.tolist(), batch.prompt_mask.tolist()
    advantages = []
    for row, (own, grpo) in enumerate(zip(batch.log_prob.tolist(), batch.grpo_advantage.tolist(), strict=True)):
        response = [value for value, token in zip(own, mask[row], strict=True) if token]
        prompt = [value for value, token in zip(prompts[row], prompt_mask[row], strict=True) if token]
        verdicts = [verdict for verdict, group in zip(correct, groups, strict=True) if group == groups[row]]
        added = term(response, prompt, verdicts, settings)
        advantages.append([(value + added) * token for value, token in zip(grpo, mask[row], strict=True)])
    return advantages
