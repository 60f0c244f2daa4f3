"""RL-ZVP (arXiv 2509.21880) in loops: GRPO in mixed groups, entropy in groups of one outcome."""

from __future__ import annotations

from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, correct = batch.groups.ids.tolist(), batch.correct.tolist()
    entropy, masks, grpo = batch.entropy.tolist(), batch.response_mask.tolist(), batch.grpo_advantage.tolist()
    found = []
    for row, mask in enumerate(masks):
        verdicts = {verdict for group, verdict in zip(groups, correct, strict=True) if group == groups[row]}
        values = [max(h, 0.0) if kept else 0.0 for h, kept in zip(entropy[row], mask, strict=True)]
        highest = max(values, default=0.0)
        line = []
        for position, kept in enumerate(mask):
            if not kept:
                line.append(0.0)
            elif len(verdicts) == 2:
                line.append(grpo[row][position])
            elif correct[row]:
                line.append(settings.entropy_weight * values[position])
            else:
                line.append(-settings.entropy_weight * (highest - values[position]))
        found.append(line)
    return found
