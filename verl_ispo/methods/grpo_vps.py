"""GRPO-VPS (arXiv 2604.20659): how far each segment of a response raises the probability of the ground truth.

    A_t = R - mean R + alpha (C_k - C_{k-1}) on the tokens of segment k,  C_k = p(ground truth | prompt, segments 1..k)

Segments end at tokens of high entropy: those at or above a percentile of the response's entropies are cut points, and
every segment but the first begins at one of them, so that all hold about as many.

Source: the paper's full text (equations 1 to 6; alpha 1.2, four cut points per segment on average). Not given there,
so ours: the percentile; how M follows from the cut points (rounded); the text between a cut and the ground truth; a
bound on the number of segments. Ours too: segments end where the response opens its own answer, since the ground truth
behind a stated answer says nothing of the reasoning; lead-in and answer get R - mean R alone. R is the verifier's
verdict.

A group with a single outcome, and a single rollout, have R - mean R = 0 and learn from the progress term alone. A
rollout whose ground truth is not scored has no progress term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, check_text, check_whole_number, from_section
from verl_ispo.methods.method import CutRequest, Method, MethodBatch, Need, PrefixCuts, PrefixScores
from verl_ispo.methods.segments import on_segments
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.grpo_vps"


@dataclass(frozen=True)
class GRPOVPSConfig:
    r"""Settings of GRPO-VPS, the keys of ``algorithm.grpo_vps``.

    Args:
        progress_weight (`float`, *optional*, defaults to `1.2`):
            alpha, the weight of the segments' progress. Paper (equation 6). `0` leaves R - mean R.
        entropy_percentile (`float`, *optional*, defaults to `0.95`):
            Share of a response's tokens that lie below the cut points' entropies, in [0, 1]. Ours: the paper names no
            value.
        cut_points_per_segment (`int`, *optional*, defaults to `4`):
            n, the mean number of cut points in a segment. Paper.
        max_segments (`int`, *optional*, defaults to `6`):
            Most segments of a response, each of which costs a forward; `None` for no bound. Ours: the paper compares
            with six segments of equal length and calls these more than its own.
        lead_in (`str`, *optional*, defaults to `"\\boxed{"`):
            Text between a cut and the ground truth. Ours: the paper does not say whether there is any.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    progress_weight: float = 1.2
    entropy_percentile: float = 0.95
    cut_points_per_segment: int = 4
    max_segments: int | None = 6
    lead_in: str = "\\boxed{"

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.progress_weight", self.progress_weight, low=0)
        check_number(f"{SECTION}.entropy_percentile", self.entropy_percentile, low=0, high=1)
        check_whole_number(f"{SECTION}.cut_points_per_segment", self.cut_points_per_segment, low=1)
        if self.max_segments is not None:
            check_whole_number(f"{SECTION}.max_segments", self.max_segments, low=1)
        check_text(f"{SECTION}.lead_in", self.lead_in, may_be_empty=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> GRPOVPSConfig:
        """Build from Hydra's ``algorithm.grpo_vps``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def cut_points(entropy: torch.Tensor, percentile: float) -> list[int]:
    """Indices of the tokens whose entropy is at or above a percentile of all of them (equation 1), rising."""
    if not len(entropy):
        return []
    threshold = torch.quantile(entropy, percentile, interpolation="higher")
    return (entropy >= threshold).nonzero().squeeze(-1).tolist()


def segment_ends(request: CutRequest, config: GRPOVPSConfig) -> list[int]:
    """Where the segments of a response end (equation 2), rising; empty where there is no token before the answer."""
    end = request.trace_length
    if end == 0:
        return []
    points = [point for point in cut_points(request.entropy, config.entropy_percentile) if point < end]
    per_segment = config.cut_points_per_segment
    segments = max(1, (2 * len(points) + per_segment) // (2 * per_segment))
    if config.max_segments is not None:
        segments = min(segments, config.max_segments)
    # A segment begins at a cut point, the token in which the response takes its direction.
    begins = [points[index * len(points) // segments] for index in range(1, segments)]
    return [*begins, end]


def answer_probability(scores: PrefixScores) -> torch.Tensor:
    """C: the ground truth's probability behind each cut, all its tokens together, `(batch, cuts)` float64."""
    return (scores.mean_log_prob.double() * scores.tokens.unsqueeze(-1)).exp()


def grpo_vps_advantage(
    correct: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    scores: PrefixScores,
    config: GRPOVPSConfig,
) -> torch.Tensor:
    """R - mean R + alpha (C_k - C_{k-1}) of every token (equation 6); rows without tokens get 0.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): R.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        groups (`RolloutGroups`): of the batch.
        scores (`PrefixScores`): behind the cuts of `segment_ends`.
        config (`GRPOVPSConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64.
    """
    outcome = correct.double()
    outcome = outcome - groups.reduce(outcome, "mean")[groups.ids]
    progress = on_segments(answer_probability(scores).diff(dim=-1), scores, response_mask.shape[-1])
    return torch.where(response_mask.bool(), outcome.unsqueeze(-1) + config.progress_weight * progress, 0.0)


def _advantage(batch: MethodBatch, config: GRPOVPSConfig) -> torch.Tensor:
    return grpo_vps_advantage(batch.correct, batch.response_mask, batch.groups, batch.prefix_scores, config)


METHOD = Method(
    name="grpo_vps",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.PREFIX_SCORES}),
    settings=GRPOVPSConfig.from_mapping,
    prefix_cuts=PrefixCuts(positions=segment_ends, lead_in=lambda config: config.lead_in),
)
