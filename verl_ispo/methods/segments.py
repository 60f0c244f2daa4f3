"""Parts of a response between cuts: where steps of a text end, and values of parts on their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from verl_ispo.config.section import check_text, check_whole_number
from verl_ispo.methods.method import PrefixScores


def step_ends(token_texts: Sequence[str], separator: str, end: int, most: int | None = None) -> list[int]:
    """Where the steps of a response end, as numbers of tokens, rising; the last one ends at ``end``.

    A step ends with the token that holds the separator's last character. Where there are more steps than ``most``,
    neighbours are joined, about as many in each.

    Args:
        token_texts (`Sequence[str]`): each token's own text.
        separator (`str`): what a step ends with, not empty.
        end (`int`): tokens before the answer is opened.
        most (`int`, *optional*): most steps.
    """
    if end == 0:
        return []
    # A separator that begins before the end counts only where it also ends there.
    texts = token_texts[:end]
    text, lengths = "".join(texts), list(accumulate(map(len, texts)))
    found: list[int] = []
    at = text.find(separator)
    while at >= 0:
        last = at + len(separator)
        token = int(np.searchsorted(lengths, last)) + 1
        if token < end and (not found or token > found[-1]):
            found.append(token)
        at = text.find(separator, last)
    ends = [*found, end]
    if most is not None and len(ends) > most:
        ends = [ends[(step + 1) * len(ends) // most - 1] for step in range(most)]
    return ends


def on_segments(values: torch.Tensor, scores: PrefixScores, response_length: int) -> torch.Tensor:
    """Put one value per segment on its tokens; a segment lies between two cuts that follow each other.

    Args:
        values (`torch.Tensor` of shape `(batch, cuts - 1)`).
        scores (`PrefixScores`): its cuts.
        response_length (`int`): number of columns.

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`; 0 behind the last cut and where nothing was scored.
    """
    position = torch.arange(response_length, device=values.device)
    out = values.new_zeros(len(values), response_length)
    for segment in range(values.shape[-1]):
        begin, end = (scores.cuts[:, segment + side].unsqueeze(-1) for side in (0, 1))
        inside = (position >= begin) & (position < end) & scores.mask[:, segment + 1].unsqueeze(-1)
        out = torch.where(inside, values[:, segment].unsqueeze(-1), out)
    return out


def check_step_settings(section: str, separator: object, most: object, lead_in: object) -> None:
    """Raise `ValueError`, naming key and value, unless the keys of a method that scores steps can be used."""
    check_text(f"{section}.step_separator", separator)
    if most is not None:
        check_whole_number(f"{section}.max_steps", most, low=1)
    check_text(f"{section}.lead_in", lead_in, may_be_empty=True)
