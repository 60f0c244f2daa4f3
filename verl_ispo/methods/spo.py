"""SPO (arXiv 2509.13232), single stream: one rollout for each prompt, and a baseline that is kept for the prompt.

    A = whitened (R - p), p = alpha / (alpha + beta) before the step; then alpha <- rho alpha + R,
    beta <- rho beta + 1 - R; prompts are drawn with weight sqrt(p (1 - p)) + 0.05

whitened over the step's rollouts: (A - mean) / (std + 1e-8), the std unbiased.

Source: the authors' code (verl-recipe, spo/spo_ray_trainer.py). Of its two rules for rho this is the constant one,
0.875; the other scores each prompt's previous rollout again. A prompt begins with alpha = beta = 0.5, as there without
values from rollouts before the training (with 8 of them it has 8 times their shares). Ours: R is the verifier's
verdict; the share of the candidates that is kept; with several rollouts of a prompt in one step alpha and beta are
decayed once and get the sums of R and 1 - R.

There are no groups: all-correct and all-incorrect ones learn like others, and a single rollout is the rule. A step
whose R - p are all equal, or that has one rollout, gets nothing.
"""

from __future__ import annotations

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
from verl_ispo.methods.prompt_drawing import refuse_other_prompts, weighted_draw

SECTION = "algorithm.spo"
WHITENING_EPSILON = 1e-8


@dataclass(frozen=True)
class SPOConfig:
    """Settings of SPO, the keys of ``algorithm.spo``.

    Args:
        rho (`float`, *optional*, defaults to `0.875`):
            What alpha and beta are multiplied by before a new outcome. In [0, 1]. Authors' code, constant option.
        initial_alpha (`float`, *optional*, defaults to `0.5`):
            alpha of a prompt without an outcome yet. Above 0. Authors' code, without values from before the training.
        initial_beta (`float`, *optional*, defaults to `0.5`):
            Likewise beta.
        exploration (`float`, *optional*, defaults to `0.05`):
            Added to each prompt's weight sqrt(p (1 - p)). Above 0. Authors' code.
        keep_fraction (`float`, *optional*, defaults to `0.2`):
            Share of the loaded prompts that is drawn, in (0, 1]; `1` trains on all of them. Ours (the authors draw 1024
            of 14000).
        seed (`int`, *optional*, defaults to `0`):
            Of the draws. At least 0. Ours.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    rho: float = 0.875
    initial_alpha: float = 0.5
    initial_beta: float = 0.5
    exploration: float = 0.05
    keep_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.rho", self.rho, low=0, high=1)
        for name in ("initial_alpha", "initial_beta", "exploration"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0, low_open=True)
        check_number(f"{SECTION}.keep_fraction", self.keep_fraction, low=0, high=1, low_open=True)
        check_whole_number(f"{SECTION}.seed", self.seed)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> SPOConfig:
        """Build from Hydra's ``algorithm.spo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


@dataclass(frozen=True)
class SPOState:
    """alpha and beta of each prompt that has been answered, by its key."""

    counts: Mapping[str, Sequence[float]] = field(default_factory=dict)


def success_rates(keys: Sequence[str], state: SPOState, config: SPOConfig) -> torch.Tensor:
    """p = alpha / (alpha + beta) of each key, `(keys,)` float64."""
    start = (config.initial_alpha, config.initial_beta)
    counts = torch.tensor([tuple(state.counts.get(key, start)) for key in keys], dtype=torch.float64).reshape(-1, 2)
    return counts[:, 0] / counts.sum(dim=-1)


def whitened(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(values - mean) / (std + 1e-8) over some rows, the std unbiased; 0 in the others, and where there is one row.

    Args:
        values (`torch.Tensor` of shape `(batch,)`).
        rows (`torch.Tensor` of shape `(batch,)`, bool).
    """
    out = torch.zeros_like(values)
    if int(rows.sum()) > 1:
        centred = values[rows] - values[rows].mean()
        out[rows] = centred / (centred.std() + WHITENING_EPSILON)
    return out


def spo_advantage(batch: MethodBatch, config: SPOConfig) -> torch.Tensor:
    """R - p, whitened over the rollouts of the step, `(batch,)` float64."""
    baseline = success_rates(batch.prompt_keys, batch.state, config).to(batch.correct.device)
    return whitened(batch.correct.double() - baseline, batch.response_mask.bool().any(dim=-1))


def updated(state: SPOState, batch: MethodBatch, config: SPOConfig) -> SPOState:
    """The counts after a step: decayed once for each prompt of it, and its outcomes added."""
    outcomes: dict[str, list[float]] = {}
    for key, correct in zip(batch.prompt_keys, batch.correct.tolist(), strict=True):
        if key:
            outcomes.setdefault(key, []).append(float(correct))
    counts = dict(state.counts)
    for key, of_prompt in outcomes.items():
        alpha, beta = counts.get(key, (config.initial_alpha, config.initial_beta))
        wins = sum(of_prompt)
        counts[key] = [config.rho * alpha + wins, config.rho * beta + len(of_prompt) - wins]
    return SPOState(counts)


def draw(candidates: PromptCandidates, config: SPOConfig) -> DrawnPrompts:
    """Candidates drawn without replacement, with weight sqrt(p (1 - p)) + exploration."""
    rates = success_rates(candidates.keys, candidates.state, config)
    weights = (rates * (1 - rates)).sqrt() + config.exploration
    rows = weighted_draw(candidates.keys, weights, candidates.keep, config.seed, candidates.step)
    return DrawnPrompts(rows, weights)


METHOD = Method(
    name="spo",
    advantage=spo_advantage,
    needs=frozenset({Need.CORRECT, Need.PROMPT_KEY}),
    settings=SPOConfig.from_mapping,
    prompt_choice=PromptChoice(keep_fraction=lambda config: config.keep_fraction, score_name="weight", draw=draw),
    state=MethodState(name="counts", kind=SPOState, update=updated),
    contradictions=refuse_other_prompts,
)
