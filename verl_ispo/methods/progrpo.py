"""ProGRPO (arXiv 2602.05281): GRPO's advantage, shifted by how sure the policy is of the prompt and of the response.

Source: detailed notes by others, which agree on the cases equation and on GRPO's advantage (divided by the std) inside
it. The constant a is not known, and the notes differ on all-right groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.checks import check_finite, check_same_shape
from verl_ispo.signals.critical_tokens import entropy_filter
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.masked import masked_row_mean

SECTION = "algorithm.progrpo"
ALL_RIGHT_MODES = ("keep", "skip")


@dataclass(frozen=True)
class ProGRPOConfig:
    """Settings of ProGRPO, the keys of ``algorithm.progrpo``.

    Args:
        confidence_weight (`float`, *optional*, defaults to `0.1`):
            a, the weight of c(q) - c(o). Ours: the paper's value is not known to us. Both confidences are in [0, 1],
            and with 0/1 scores no advantage in a mixed group of G is smaller than 1 / sqrt(G) (1 / G without the std),
            so at 0.1 the term changes no sign for G below 100 (below 10). In an all-right group the term is the whole
            advantage. `0` is GRPO.
        low_probability_fraction (`float`, *optional*, defaults to `0.2`):
            Share of a text's tokens, the least likely ones, that its confidence is taken from. In (0, 1]. From notes.
        all_right_groups (`str`, *optional*, defaults to `"keep"`):
            Whether groups without any incorrect rollout get the term: `"keep"` (the cases equation) or `"skip"` (GRPO's
            advantage, as in all-wrong groups).

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    confidence_weight: float = 0.1
    low_probability_fraction: float = 0.2
    all_right_groups: str = "keep"

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.confidence_weight", self.confidence_weight, low=0)
        check_number(f"{SECTION}.low_probability_fraction", self.low_probability_fraction, low=0, high=1, low_open=True)
        check_choice(f"{SECTION}.all_right_groups", self.all_right_groups, ALL_RIGHT_MODES)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> ProGRPOConfig:
        """Build from Hydra's ``algorithm.progrpo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def low_probability_confidence(log_prob: torch.Tensor, mask: torch.Tensor, fraction: float) -> torch.Tensor:
    """c(x) = exp(mean log p over the least likely share of the tokens of x), in [0, 1] (arXiv 2602.05281).

    The count is ceil(fraction * tokens), ties by position (both ours): deterministic, and the same under any padding.

    Args:
        log_prob (`torch.Tensor` of shape `(batch, length)`): may hold anything, NaN too, where the mask is false.
        mask (`torch.Tensor` of shape `(batch, length)`, bool).
        fraction (`float`): in (0, 1].

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32; 1 for a row without tokens, whose confidence is not defined.
    """
    # The critical tokens' entropy filter, applied to the surprisal.
    least_likely = entropy_filter(-log_prob, mask, fraction)
    return masked_row_mean(log_prob, least_likely).exp()


def confidence_gap(
    log_prob: torch.Tensor,
    response_mask: torch.Tensor,
    prompt_log_prob: torch.Tensor,
    prompt_mask: torch.Tensor,
    fraction: float,
) -> torch.Tensor:
    """c(q) - c(o), in [-1, 1]: positive where the policy is surer of the prompt than of its own response.

    A prompt's first token has no log-prob. Where either side has no log-prob at all (a prompt of one token, a padding
    row) its confidence is not defined, and the gap is 0 (ours).

    Args:
        log_prob (`torch.Tensor` of shape `(batch, response_length)`): of the sampled tokens, rollout policy.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        prompt_log_prob (`torch.Tensor` of shape `(batch, prompt_length)`): of the prompt's tokens but the first.
        prompt_mask (`torch.Tensor` of shape `(batch, prompt_length)`): 1 where there is such a token.
        fraction (`float`): share of the tokens, in (0, 1].

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32.

    Raises:
        SignalShapeError: shapes that do not fit, listed.
        NonFiniteSignalError: NaN or infinity where a mask is true, with field, row and position.
    """
    check_same_shape(tuple(response_mask.shape), log_prob=log_prob, response_mask=response_mask)
    prompt_shape = (response_mask.shape[0], prompt_mask.shape[-1])
    check_same_shape(prompt_shape, prompt_log_prob=prompt_log_prob, prompt_mask=prompt_mask)
    response_mask, prompt_mask = response_mask.bool(), prompt_mask.bool()
    check_finite(response_mask, log_prob=log_prob)
    check_finite(prompt_mask, prompt_log_prob=prompt_log_prob)
    of_prompt = low_probability_confidence(prompt_log_prob, prompt_mask, fraction)
    of_response = low_probability_confidence(log_prob, response_mask, fraction)
    defined = prompt_mask.any(dim=-1) & response_mask.any(dim=-1)
    return torch.where(defined, of_prompt - of_response, 0.0)


@torch.no_grad()
def progrpo_advantage(
    advantage: torch.Tensor,
    response_mask: torch.Tensor,
    gap: torch.Tensor,
    correct: torch.Tensor,
    groups: RolloutGroups,
    config: ProGRPOConfig,
) -> torch.Tensor:
    """A' = A in all-wrong groups, else A + a (c(q) - c(o)), for correct and incorrect rollouts (arXiv 2602.05281).

    "All wrong" goes by the verifier's verdict, not by the score, which may be shaped (ours). A group of one is all
    wrong or all right; in an all-right group of one verl's GRPO keeps the score as A, and the term is added to it.

    Args:
        advantage (`torch.Tensor` of shape `(batch, response_length)`): GRPO's A.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): where the term is added.
        gap (`torch.Tensor` of shape `(batch,)`): of `confidence_gap`.
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict; false for padding rows.
        groups (`RolloutGroups`): which rollouts share a prompt.
        config (`ProGRPOConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, detached.
    """
    left_alone = groups.all_wrong(correct)
    if config.all_right_groups == "skip":
        left_alone = left_alone | groups.all_right(correct)
    term = torch.where(left_alone[groups.ids], 0.0, config.confidence_weight * gap)
    return advantage + term.unsqueeze(-1) * response_mask


def _advantage(batch: MethodBatch, config: ProGRPOConfig) -> torch.Tensor:
    gap = confidence_gap(
        batch.log_prob,
        batch.response_mask,
        batch.prompt_log_prob,
        batch.prompt_mask,
        config.low_probability_fraction,
    )
    return progrpo_advantage(batch.grpo_advantage, batch.response_mask, gap, batch.correct, batch.groups, config)


METHOD = Method(
    name="progrpo",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.LOG_PROB, Need.PROMPT_LOG_PROB, Need.GRPO_ADVANTAGE}),
    settings=ProGRPOConfig.from_mapping,
)
