r"""SPAE (arXiv 2601.03823): how right and how sure the policy would be if it answered after each step.

    Phi = 1.5 Acc Conf + 0.5 Acc - Conf    (1: right and sure, 0: not sure, -1: wrong and sure)
    A = (R - mean R) f + 0.5 g,  then (A - mean) / std over all tokens of the batch
    f = 1 - 0.5 (1 - exp(-number of earlier steps with Phi > 0.9))
    g = exp(scaled dPhi) - its mean over the batch's steps,  dPhi = Phi_k - Phi_{k-1}

Acc is the probability per token of the ground truth behind ``**Final Answer**\n\boxed{``.

Source: detailed notes by others, and the authors' example of the probe (cii030/SPAE-RL at ed529f8a9f76), which has Acc
as exp of the mean log-prob, as here (the text: mean of the probabilities), and the threshold 0.9. Their training code
is not public.

Ours, and not the paper's: **Conf is exp(-mean entropy) at the ground truth's own tokens**. The paper samples five short
answers and takes their entropies, which needs generation after every step. Behind a first token that the policy would
not have written, ours is therefore the certainty of how that answer goes on. Ours too,
since not given: dPhi is scaled to [0, 1] over the steps of the batch; Phi_0 is that of the prompt alone; the number of
steps is bounded; steps end where the response opens its own answer, and lead-in and answer have no g.

Groups with a single outcome, and single rollouts, have R - mean R = 0 and learn from g alone; the whitening then moves
every token by the batch's mean. A rollout whose ground truth is not scored has f = 1 and g = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import CutRequest, Method, MethodBatch, Need, PrefixCuts, PrefixScores
from verl_ispo.methods.segments import check_step_settings, on_segments, step_ends
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.spae"


@dataclass(frozen=True)
class SPAEConfig:
    r"""Settings of SPAE, the keys of ``algorithm.spae``.

    Args:
        joint_weight (`float`, *optional*, defaults to `1.5`):
            Of Acc Conf in Phi. Notes.
        accuracy_weight (`float`, *optional*, defaults to `0.5`):
            Of Acc in Phi. Notes.
        confidence_weight (`float`, *optional*, defaults to `1.0`):
            Of -Conf in Phi. Notes.
        saturation_threshold (`float`, *optional*, defaults to `0.9`):
            Phi above which a step counts as solved. The authors' example; the text's value is not known to us.
        saturation_penalty (`float`, *optional*, defaults to `0.5`):
            alpha, the share of the outcome's advantage that steps after solved ones lose at most, in [0, 1]. Notes.
        shaping_weight (`float`, *optional*, defaults to `0.5`):
            xi, the weight of g. Notes.
        step_separator (`str`, *optional*, defaults to `".\n\n"`):
            Text that ends a step. Notes.
        max_steps (`int`, *optional*, defaults to `16`):
            Most steps of a response, each of which costs a forward; `None` for no bound. Ours. Where there are more,
            neighbours are joined.
        lead_in (`str`, *optional*, defaults to `"**Final Answer**\n\\boxed{"`):
            Text between a step and the ground truth. The authors' example.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    joint_weight: float = 1.5
    accuracy_weight: float = 0.5
    confidence_weight: float = 1.0
    saturation_threshold: float = 0.9
    saturation_penalty: float = 0.5
    shaping_weight: float = 0.5
    step_separator: str = ".\n\n"
    max_steps: int | None = 16
    lead_in: str = "**Final Answer**\n\\boxed{"

    def __post_init__(self) -> None:
        for name in ("joint_weight", "accuracy_weight", "confidence_weight", "shaping_weight"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0)
        check_number(f"{SECTION}.saturation_threshold", self.saturation_threshold)
        check_number(f"{SECTION}.saturation_penalty", self.saturation_penalty, low=0, high=1)
        check_step_settings(SECTION, self.step_separator, self.max_steps, self.lead_in)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> SPAEConfig:
        """Build from Hydra's ``algorithm.spae``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def step_potential(scores: PrefixScores, config: SPAEConfig) -> torch.Tensor:
    """Phi behind each cut, `(batch, cuts)` float64; 0 where nothing was scored."""
    accuracy = torch.where(scores.mask, scores.mean_log_prob.double(), 0.0).exp()
    # rounding may give an entropy below 0
    confidence = torch.where(scores.mask, -scores.mean_entropy.double().clamp(min=0.0), 0.0).exp()
    potential = config.joint_weight * accuracy * confidence + config.accuracy_weight * accuracy
    return torch.where(scores.mask, potential - config.confidence_weight * confidence, 0.0)


def saturation_factor(
    potential: torch.Tensor, scores: PrefixScores, response_length: int, config: SPAEConfig
) -> torch.Tensor:
    """f of every token, `(batch, response_length)`: 1 less alpha (1 - exp(-solved steps that end before the token))."""
    position = torch.arange(response_length, device=potential.device)
    solved = scores.mask & (potential > config.saturation_threshold)
    earlier = potential.new_zeros(len(potential), response_length)
    for cut in range(1, potential.shape[-1]):
        is_behind = position >= scores.cuts[:, cut].unsqueeze(-1)
        earlier = earlier + (is_behind & solved[:, cut].unsqueeze(-1))
    return 1.0 - config.saturation_penalty * (1.0 - (-earlier).exp())


def difference_shaping(potential: torch.Tensor, has_step: torch.Tensor) -> torch.Tensor:
    """g of each step, `(batch, cuts - 1)`: exp of dPhi scaled to [0, 1] over the steps, less its mean over them.

    0 where there is no step, and everywhere where all dPhi are equal.

    Args:
        potential (`torch.Tensor` of shape `(batch, cuts)`): Phi.
        has_step (`torch.Tensor` of shape `(batch, cuts - 1)`, bool).
    """
    change = potential.diff(dim=-1)
    if not has_step.any():
        return torch.zeros_like(change)
    steps = change[has_step]
    lowest, highest = steps.min(), steps.max()
    if lowest == highest:
        return torch.zeros_like(change)
    raised = ((change - lowest) / (highest - lowest)).exp()
    return torch.where(has_step, raised - raised[has_step].mean(), 0.0)


def whitened(values: torch.Tensor, mask: torch.Tensor, epsilon: float = 1e-8) -> torch.Tensor:
    """(v - mean) / (std + epsilon) over all masked values, the std unbiased; 0 where not masked."""
    if not mask.any():
        return torch.zeros_like(values)
    chosen = values[mask]
    # Measured from the smallest value, so that equal values leave no rounding error to divide by epsilon.
    chosen = chosen - chosen.min()
    centred = chosen - chosen.mean()
    std = (centred.square().sum() / max(len(chosen) - 1, 1)).sqrt()
    return torch.zeros_like(values).masked_scatter(mask, centred / (std + epsilon))


def spae_advantage(
    correct: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    scores: PrefixScores,
    config: SPAEConfig,
) -> torch.Tensor:
    """(R - mean R) f + xi g of every token, whitened over the batch; 0 where not masked.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): R, the verifier's verdict.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        groups (`RolloutGroups`): of the batch.
        scores (`PrefixScores`): behind the steps' ends.
        config (`SPAEConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64.
    """
    length, outcome = response_mask.shape[-1], correct.double()
    outcome = outcome - groups.reduce(outcome, "mean")[groups.ids]
    potential = step_potential(scores, config)
    factor = saturation_factor(potential, scores, length, config)
    shaping = on_segments(difference_shaping(potential, scores.mask[:, 1:]), scores, length)
    return whitened(outcome.unsqueeze(-1) * factor + config.shaping_weight * shaping, response_mask.bool())


def _advantage(batch: MethodBatch, config: SPAEConfig) -> torch.Tensor:
    return spae_advantage(batch.correct, batch.response_mask, batch.groups, batch.prefix_scores, config)


def _ends(request: CutRequest, config: SPAEConfig) -> list[int]:
    return step_ends(request.token_texts, config.step_separator, request.trace_length, config.max_steps)


METHOD = Method(
    name="spae",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.PREFIX_SCORES}),
    settings=SPAEConfig.from_mapping,
    prefix_cuts=PrefixCuts(positions=_ends, lead_in=lambda config: config.lead_in),
)
