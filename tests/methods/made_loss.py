"""Micro-batches for the tests of policy losses, and a loss's gradient beside finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from verl_ispo.methods.method import GROUP_COLUMN, LossBatch

Rows = Sequence[Sequence[float]]
Rule = Callable[[LossBatch], torch.Tensor]


def made_loss_batch(
    log_ratio: Rows,
    groups: Sequence[int] | None = None,
    columns: Mapping[str, Sequence[float]] | None = None,
    advantages: Sequence[float] | None = None,
    old_log_prob: Rows | None = None,
    **fields: Any,
) -> LossBatch:
    """A micro-batch of rows of any lengths, an empty one for a row without tokens.

    Args:
        log_ratio: of each row's tokens.
        groups: number of each row's prompt; `None` for a loss that does not read it.
        columns: of `Method.loss_columns`, one value per row.
        advantages: one per row.
        old_log_prob: of each row's tokens; -1 by default.
        **fields: of `LossBatch`, such as ``clip_low``.
    """
    width = max(map(len, log_ratio))
    mask = torch.tensor([[position < len(row) for position in range(width)] for row in log_ratio])

    def padded(rows: Rows) -> torch.Tensor:
        return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float64)

    def on_tokens(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64).unsqueeze(-1) * mask

    given = dict(columns or {}) | ({} if groups is None else {GROUP_COLUMN: groups})
    ratios = padded(log_ratio)
    return LossBatch(
        log_ratio=ratios.clamp(-20.0, 20.0),
        unclamped_log_ratio=ratios,
        advantages=on_tokens([0.0] * len(log_ratio) if advantages is None else advantages),
        response_mask=mask,
        old_log_prob=torch.full_like(ratios, -1.0) * mask if old_log_prob is None else padded(old_log_prob),
        columns={name: on_tokens(values) for name, values in given.items()},
        **{"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0, "importance_weights": None} | fields,
    )


def moved(batch: LossBatch, log_ratio: torch.Tensor) -> LossBatch:
    """The same tokens under another current policy."""
    return replace(batch, log_ratio=log_ratio.clamp(-20.0, 20.0), unclamped_log_ratio=log_ratio)


def gradient(rule: Rule, batch: LossBatch) -> torch.Tensor:
    """Of the sum of the loss over the tokens, at every token's log-prob."""
    log_ratio = batch.unclamped_log_ratio.clone().requires_grad_()
    total = (rule(moved(batch, log_ratio)) * batch.response_mask).sum()
    return torch.autograd.grad(total, log_ratio)[0]


def slope(rule: Rule, batch: LossBatch, step: float = 1e-6) -> torch.Tensor:
    """The same by central differences of the loss's values."""
    found = torch.zeros_like(batch.unclamped_log_ratio)
    for row, position in batch.response_mask.nonzero().tolist():
        totals = []
        for change in (step, -step):
            log_ratio = batch.unclamped_log_ratio.clone()
            log_ratio[row, position] += change
            totals.append((rule(moved(batch, log_ratio)) * batch.response_mask).sum().item())
        found[row, position] = (totals[0] - totals[1]) / (2 * step)
    return found
