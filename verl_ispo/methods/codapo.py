"""CoDaPO (arXiv 2606.07950): GRPO's advantage, weighted by confidence and difficulty of the prompt.

    A = w A_grpo, w = c (1 - 4 (d - 1/2)^2) + 0.1, d = 1 - accuracy of the group,
    c = exp(mean over the group of each response's mean log-prob)

After every step with new prompts comes one with those whose w is at least the 0.75 quantile, each 4 times, with
rollouts of its own each time; the prompts and their w are in the checkpoint.

Source: the authors' code (tmlr-group/CoDaPO at 210c2051f54d). Ours: accuracy goes by the verifier's verdict (there:
a score of 1), repeated prompts are not drawn from a batch that is loaded twice but kept, and a response's mean
log-prob is at most 0. All-correct and all-incorrect groups have GRPO's 0; a rollout alone in its group has
w = 0.1, and GRPO keeps its score.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from verl_ispo.config.section import check_number, check_whole_number, from_section
from verl_ispo.methods.method import (
    DrawnPrompts,
    Method,
    MethodBatch,
    MethodState,
    Need,
    PromptCandidates,
    PromptChoice,
)
from verl_ispo.methods.prompt_drawing import refuse_other_prompts
from verl_ispo.signals.checks import check_finite

SECTION = "algorithm.codapo"


@dataclass(frozen=True)
class CoDaPOConfig:
    """Settings of CoDaPO, the keys of ``algorithm.codapo``.

    Args:
        weight_offset (`float`, *optional*, defaults to `0.1`):
            Added to every weight. At least 0. Authors' code.
        percentile (`float`, *optional*, defaults to `0.75`):
            Quantile of a step's weights from which on its prompts are repeated in the next step. In [0, 1]. Authors'
            code.
        repeat_count (`int`, *optional*, defaults to `4`):
            How often each of them is there in that step; `0` repeats none. Authors' code.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    weight_offset: float = 0.1
    percentile: float = 0.75
    repeat_count: int = 4

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.weight_offset", self.weight_offset, low=0)
        check_number(f"{SECTION}.percentile", self.percentile, low=0, high=1)
        check_whole_number(f"{SECTION}.repeat_count", self.repeat_count)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> CoDaPOConfig:
        """Build from Hydra's ``algorithm.codapo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


@dataclass(frozen=True)
class CoDaPOState:
    """Weights of the last step's prompts by their keys; empty where the next step takes new prompts."""

    weights: Mapping[str, float] = field(default_factory=dict)


def group_weights(batch: MethodBatch, config: CoDaPOConfig) -> torch.Tensor:
    """w of each group, `(groups,)` float64, between the offset and 1 + the offset.

    Raises:
        NonFiniteSignalError: a log-prob of a response that is NaN or infinite, with row and position.
    """
    mask = batch.response_mask.bool()
    check_finite(mask, log_prob=batch.log_prob)
    total = torch.where(mask, batch.log_prob.double(), 0.0).sum(dim=-1)
    mean_log_prob = (total / mask.sum(dim=-1).clamp(min=1)).clamp(max=0)
    confidence = batch.groups.reduce(mean_log_prob, "mean").exp()
    difficulty = 1 - batch.groups.reduce(batch.correct.double(), "mean")
    return confidence * (1 - 4 * (difficulty - 0.5) ** 2) + config.weight_offset


def codapo_advantage(batch: MethodBatch, config: CoDaPOConfig) -> torch.Tensor:
    """w A, A being verl's own GRPO, `(batch, response_length)`."""
    weight = group_weights(batch, config)[batch.groups.ids].unsqueeze(-1)
    return torch.where(batch.response_mask.bool(), weight * batch.grpo_advantage, 0.0)


def repeated_prompts(weights: Sequence[float], keep: int, config: CoDaPOConfig) -> list[int]:
    """Indices of the prompts at or above the quantile, each `repeat_count` times, over and over up to `keep`."""
    values = torch.tensor(weights, dtype=torch.float64)
    # a little lower, so that interpolating between equal weights does not leave them out
    threshold = float(values.quantile(config.percentile)) - 1e-12
    chosen = [index for index, weight in enumerate(weights) if weight >= threshold]
    one_round = [index for index in chosen for _ in range(config.repeat_count)]
    return list(itertools.islice(itertools.cycle(one_round), keep))


def updated(state: CoDaPOState, batch: MethodBatch, config: CoDaPOConfig) -> CoDaPOState:
    """After a step with new prompts their weights; after one with repeated prompts nothing."""
    if state.weights or not config.repeat_count:
        return CoDaPOState()
    weights: dict[str, float] = {}
    of_groups = group_weights(batch, config).tolist()
    for key, group in zip(batch.prompt_keys, batch.groups.ids.tolist(), strict=True):
        if key:
            weights[key] = max(of_groups[group], weights.get(key, 0.0))
    return CoDaPOState(weights)


def draw(candidates: PromptCandidates, config: CoDaPOConfig) -> DrawnPrompts:
    """All new prompts, or of the step before those that are repeated."""
    weights = candidates.state.weights
    if not weights:
        return DrawnPrompts(torch.arange(candidates.keep))
    of_candidates = [weights[key] for key in candidates.keys]
    rows = repeated_prompts(of_candidates, candidates.keep, config)
    return DrawnPrompts(torch.tensor(rows), torch.tensor(of_candidates, dtype=torch.float64))


METHOD = Method(
    name="codapo",
    advantage=codapo_advantage,
    needs=frozenset({Need.CORRECT, Need.LOG_PROB, Need.PROMPT_KEY, Need.GRPO_ADVANTAGE}),
    settings=CoDaPOConfig.from_mapping,
    prompt_choice=PromptChoice(
        keep_fraction=lambda config: 1.0,
        score_name="weight",
        draw=draw,
        earlier=lambda state: list(state.weights),
    ),
    state=MethodState(name="weights", kind=CoDaPOState, update=updated),
    contradictions=refuse_other_prompts,
)
