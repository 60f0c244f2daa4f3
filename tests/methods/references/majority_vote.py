"""Majority vote (TTRL, arXiv 2504.16084) in loops: GRPO's advantage on agreement with the group's winners."""

from __future__ import annotations

import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks, groups = batch.response_mask.tolist(), batch.groups.ids.tolist()
    answers = [plain(text or "") for text in batch.answer_texts]
    values = []
    for row, group in enumerate(groups):
        members = [other for other in range(len(groups)) if groups[other] == group]
        given = [answers[other] for other in members if answers[other]]
        winners = statistics.multimode(given)
        rewards = [1.0 if answers[other] in winners else 0.0 for other in members]
        own = rewards[members.index(row)]
        if len(members) == 1:
            mean, std = 0.0, 1.0
        else:
            mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
        values.append((own - mean) / (std + 1e-6 if batch.normalize_by_std else 1.0))
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]


def plain(text: str) -> str:
    for size in ("\\dfrac", "\\tfrac"):
        text = text.replace(size, "\\frac")
    for ignored in ("\\left", "\\right", "$"):
        text = text.replace(ignored, "")
    return "".join(text.split())
