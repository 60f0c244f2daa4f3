"""COPO (arXiv 2508.04138): GRPO's clipped loss blended with that of one advantage for the whole prompt.

    loss_t = w local_t + (1 - w) global_t,    w = sigmoid(k (H - b))

Both are verl's clipped loss with the dual clip: local with GRPO's advantage, global with
A_g = (Rg - mean) / (std + 1e-6) over the step's prompts, where Rg is the group's mean R. H is the entropy, in bits, of
the group's answers as exact strings; so a group that agrees (H = 0), in which GRPO has little to compare, learns from
how its prompt does beside the others. With `reward_by_entropy` Rg is the mean R times 1 - H (1 - 1/G) / log2 G.

Source: the authors' code (hijih/copo-code, commit 095afa5acb91). Its modes are the key `mode`; which of them gave the
paper's rows is not known, and "only-soft", the blend above, is our choice. k = 20 and b = 0.5 are its scripts' (notes
by others have 20 and 1.5). R of the global side is the verifier's verdict, and rollouts without an answer share one
string (both ours). A step with a single prompt has A_g = 0, and a group of one rollout the factor 1 on its R (ours: the
code divides by 0 in both). All-correct and all-incorrect groups have a local advantage of 0 and the weight 1 - w on
A_g.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.copo"
MODES = ("only-soft", "soft-with-forced", "only-forced", "soft-with-zero", "only-zero", "only-global", "no-global")
GLOBAL_COLUMN, WEIGHT_COLUMN = "global_advantage", "local_weight"


@dataclass(frozen=True)
class COPOConfig:
    """Settings of COPO, the keys of ``algorithm.copo``.

    Args:
        mode (`str`, *optional*, defaults to `"only-soft"`):
            What w is. `"only-soft"`: the sigmoid. `"soft-with-forced"`: the same, but 0 where GRPO's advantage is 0.
            `"only-forced"`: 0 there and 1 elsewhere. `"soft-with-zero"`: the sigmoid, but 0 for incorrect rollouts.
            `"only-zero"`: 0 for these and 1 for correct ones. `"only-global"`: 0. `"no-global"`: 1, which is GRPO.
            Ours: which one the paper's rows come from is not known.
        sharpness (`float`, *optional*, defaults to `20.0`):
            k, per bit. At least 0. Authors' scripts.
        middle_entropy (`float`, *optional*, defaults to `0.5`):
            b, the entropy in bits at which both sides weigh the same. At least 0. Authors' scripts.
        reward_by_entropy (`bool`, *optional*, defaults to `False`):
            Whether a prompt's reward is lowered by its answers' entropy. Authors' scripts.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    mode: str = "only-soft"
    sharpness: float = 20.0
    middle_entropy: float = 0.5
    reward_by_entropy: bool = False

    def __post_init__(self) -> None:
        check_choice(f"{SECTION}.mode", self.mode, MODES)
        check_number(f"{SECTION}.sharpness", self.sharpness, low=0)
        check_number(f"{SECTION}.middle_entropy", self.middle_entropy, low=0)
        check_choice(f"{SECTION}.reward_by_entropy", self.reward_by_entropy, (True, False))

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> COPOConfig:
        """Build from Hydra's ``algorithm.copo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def answer_entropy(answer_texts: Sequence[str | None], groups: RolloutGroups) -> torch.Tensor:
    """H: entropy in bits of each group's answers as exact strings, `(count,)` float64; `None` is one string (ours)."""
    answers: list[list[str | None]] = [[] for _ in range(groups.count)]
    for text, group in zip(answer_texts, groups.ids.tolist(), strict=True):
        answers[group].append(text)
    entropy = torch.zeros(groups.count, dtype=torch.float64)
    for group, texts in enumerate(answers):
        share = torch.tensor(list(Counter(texts).values()), dtype=torch.float64) / len(texts)
        # clamped, since a single answer would give -0
        entropy[group] = -(share * share.log2()).sum().clamp(max=0)
    return entropy


def global_advantage(
    correct: torch.Tensor,
    entropy: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    config: COPOConfig,
    normalize_by_std: bool = True,
) -> torch.Tensor:
    """A_g of each group, `(count,)` float64: its mean R beside those of the step's other prompts.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict, R.
        entropy (`torch.Tensor` of shape `(count,)`): H, in bits.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): groups without tokens pad the batch; they
            are no prompts and get 0.
        groups (`RolloutGroups`).
        config (`COPOConfig`): `reward_by_entropy` is read here.
        normalize_by_std (`bool`, *optional*, defaults to `True`): `False` leaves the division out.
    """
    reward = groups.reduce(correct.double(), "mean")
    if config.reward_by_entropy:
        size = groups.size.double()
        per_bit = (1 - 1 / size) / size.log2().where(size > 1, 1.0)
        reward = reward * (1 - per_bit * entropy)
    prompts = groups.with_tokens(response_mask)
    advantage = torch.zeros_like(reward)
    # Measured from one of them, so that equal rewards leave no rounding error to divide by 1e-6.
    rewards = reward[prompts] - reward[prompts][:1]
    if len(rewards) > 1:
        std = rewards.std() + 1e-6 if normalize_by_std else 1.0
        advantage[prompts] = (rewards - rewards.mean()) / std
    return advantage


def local_weight(
    entropy: torch.Tensor, grpo_is_zero: torch.Tensor, correct: torch.Tensor, config: COPOConfig
) -> torch.Tensor:
    """w of each rollout, `(batch,)` float64, in [0, 1].

    Args:
        entropy (`torch.Tensor` of shape `(batch,)`): H of the rollout's group.
        grpo_is_zero (`torch.Tensor` of shape `(batch,)`, bool): where GRPO's advantage is 0.
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        config (`COPOConfig`).
    """
    if config.mode == "only-global":
        return torch.zeros_like(entropy, dtype=torch.float64)
    weight = torch.ones_like(entropy, dtype=torch.float64)
    if "soft" in config.mode:
        weight = torch.sigmoid(config.sharpness * (entropy.double() - config.middle_entropy))
    if config.mode.endswith("forced"):
        weight = torch.where(grpo_is_zero, 0.0, weight)
    if config.mode.endswith("zero"):
        weight = torch.where(correct, weight, 0.0)
    return weight


def copo_columns(batch: MethodBatch, config: COPOConfig, advantages: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the loss reads beside GRPO's advantage: A_g and w, one value per rollout."""
    groups, mask = batch.groups, batch.response_mask
    entropy = answer_entropy(batch.answer_texts, groups)
    whole = global_advantage(batch.correct, entropy, mask, groups, config, batch.normalize_by_std)
    # The trainer hands GRPO's advantages over as the step's, 0 behind each response's end.
    grpo_is_zero = (advantages == 0).all(dim=-1)
    weight = local_weight(entropy[groups.ids], grpo_is_zero, batch.correct.bool(), config)
    return {GLOBAL_COLUMN: whole[groups.ids], WEIGHT_COLUMN: weight}


def clipped_loss(batch: LossBatch, advantages: torch.Tensor) -> TokenLoss:
    """verl's clipped loss with the dual clip, before aggregation, `(batch, response_length)`."""
    ratio = batch.log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - batch.clip_low, 1 + batch.clip_high)
    loss = torch.maximum(plain, clipped)
    loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * batch.dual_clip), loss)
    return TokenLoss(loss, clipped > plain)


def copo_loss(batch: LossBatch, config: COPOConfig) -> TokenLoss:
    """w local + (1 - w) global; a token counts as clipped where the side with the larger weight is."""
    weight = batch.columns[WEIGHT_COLUMN]
    local = clipped_loss(batch, batch.advantages)
    whole = clipped_loss(batch, batch.columns[GLOBAL_COLUMN])
    loss = weight * local.loss + (1 - weight) * whole.loss
    return TokenLoss(loss, torch.where(weight >= 0.5, local.clipped, whole.clipped))


METHOD = Method(
    name="copo",
    advantage=lambda batch, config: batch.grpo_advantage,
    needs=frozenset({Need.ANSWER_TEXT, Need.CORRECT, Need.GRPO_ADVANTAGE}),
    settings=COPOConfig.from_mapping,
    token_loss=copo_loss,
    loss_columns=copo_columns,
)
