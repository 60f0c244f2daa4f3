"""NFT (arXiv 2505.18116): supervised loss on correct rollouts, and on incorrect ones through an implicit policy.

    correct:   -log r                               r = exp(min(log p_new - log p_old, 10)), per token
    incorrect: -log max((1 - q r) / (1 - q), 1)     q = share of correct rollouts in the group, within [0.02, 0.98]

times 1 - q. Below the floor of 1 the gradient goes on as without it, at the floor's value. No clip.

Source: the authors' code (NVlabs/NFT at b358faeb6913); the weight 1 - q, sqrt((1 - q) / q) or none is a switch there,
and both of its training scripts set 1 - q. With that the first update is Dr.GRPO's.

Groups with a single outcome, single rollouts among them, get no loss (ours: the authors draw other prompts instead);
they count in the mean over rollouts. R is the verifier's verdict (ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss

SECTION = "algorithm.nft"
CORRECT_COLUMN, ACCURACY_COLUMN = "correct", "accuracy"
PROMPT_WEIGHTS = ("incorrect_rate", "root_odds", "none")


@dataclass(frozen=True)
class NFTConfig:
    """Settings of NFT, the keys of ``algorithm.nft``.

    Args:
        min_accuracy (`float`, *optional*, defaults to `0.02`):
            q is kept within [min_accuracy, 1 - min_accuracy]. In (0, 0.5). Authors' code.
        max_log_ratio (`float`, *optional*, defaults to `10.0`):
            Upper bound of log p_new - log p_old in r. Above 0, at most 80. Authors' code.
        min_implicit_ratio (`float`, *optional*, defaults to `1.0`):
            Floor under (1 - q r) / (1 - q). Above 0. Authors' code.
        incorrect_weight (`float`, *optional*, defaults to `1.0`):
            Weight of the incorrect rollouts' loss; `0` leaves supervised training on correct ones. Authors' code.
        prompt_weight (`str`, *optional*, defaults to `"incorrect_rate"`):
            Weight of a group: `"incorrect_rate"`, 1 - q, `"root_odds"`, sqrt((1 - q) / q), or `"none"`, 1. Authors'
            code, whose scripts take the first.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    min_accuracy: float = 0.02
    max_log_ratio: float = 10.0
    min_implicit_ratio: float = 1.0
    incorrect_weight: float = 1.0
    prompt_weight: str = "incorrect_rate"

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.min_accuracy", self.min_accuracy, 0, 0.5, low_open=True, high_open=True)
        # exp(80) is the last that float32 holds with room for a product
        check_number(f"{SECTION}.max_log_ratio", self.max_log_ratio, 0, 80, low_open=True)
        check_number(f"{SECTION}.min_implicit_ratio", self.min_implicit_ratio, low=0, low_open=True)
        check_number(f"{SECTION}.incorrect_weight", self.incorrect_weight, low=0)
        check_choice(f"{SECTION}.prompt_weight", self.prompt_weight, PROMPT_WEIGHTS)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> NFTConfig:
        """Build from Hydra's ``algorithm.nft``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def incorrect_loss(log_ratio: torch.Tensor, accuracy: torch.Tensor, config: NFTConfig) -> torch.Tensor:
    """-log max((1 - q r) / (1 - q), floor), with the gradient of the unbounded quotient over the bounded one.

    Args:
        log_ratio (`torch.Tensor` of shape `(batch, response_length)`): at most `max_log_ratio`.
        accuracy (`torch.Tensor` of shape `(batch, 1)`): q, within its bounds.
        config (`NFTConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`.
    """
    implicit = (1 - accuracy * log_ratio.exp()) / (1 - accuracy)
    floored = implicit.detach().clamp(min=config.min_implicit_ratio)
    # the second term is 0; it carries the gradient
    return -floored.log() - (implicit - implicit.detach()) / floored


def prompt_weight(accuracy: torch.Tensor, config: NFTConfig) -> torch.Tensor:
    """The weight of a group from its q within bounds, same shape."""
    if config.prompt_weight == "incorrect_rate":
        return 1 - accuracy
    return ((1 - accuracy) / accuracy).sqrt() if config.prompt_weight == "root_odds" else torch.ones_like(accuracy)


def bounded_accuracy(accuracy: torch.Tensor, config: NFTConfig) -> torch.Tensor:
    """q within [min_accuracy, 1 - min_accuracy], same shape."""
    return accuracy.clamp(config.min_accuracy, 1 - config.min_accuracy)


def nft_loss(batch: LossBatch, config: NFTConfig) -> TokenLoss:
    """The loss of every token; an incorrect rollout's token counts as clipped where the floor holds."""
    mask = batch.response_mask
    correct = batch.row_column(CORRECT_COLUMN).unsqueeze(-1) > 0.5
    share = batch.row_column(ACCURACY_COLUMN).unsqueeze(-1)
    mixed = (share > 0) & (share < 1)
    accuracy = bounded_accuracy(share, config)
    log_ratio = torch.where(mask, batch.unclamped_log_ratio, 0.0).clamp(max=config.max_log_ratio)
    incorrect = config.incorrect_weight * incorrect_loss(log_ratio, accuracy, config)
    loss = prompt_weight(accuracy, config) * torch.where(correct, -log_ratio, incorrect)
    implicit = (1 - accuracy * log_ratio.detach().exp()) / (1 - accuracy)
    below = ~correct & (implicit < config.min_implicit_ratio)
    trained = mask & mixed
    return TokenLoss(torch.where(trained, loss, 0.0), trained & below)


def _accuracy(batch: MethodBatch) -> torch.Tensor:
    """Share of correct rollouts in each rollout's group, `(batch,)`."""
    return batch.groups.reduce(batch.correct.float(), "mean")[batch.groups.ids]


def _advantage(batch: MethodBatch, config: NFTConfig) -> torch.Tensor:
    # For the metrics alone: what the first update's gradient weights the tokens' log-probs with.
    share = _accuracy(batch)
    accuracy = bounded_accuracy(share, config)
    incorrect = -config.incorrect_weight * accuracy / (1 - accuracy)
    advantage = prompt_weight(accuracy, config) * torch.where(batch.correct, 1.0, incorrect)
    return torch.where((share > 0) & (share < 1), advantage, 0.0)


METHOD = Method(
    name="nft",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT}),
    settings=NFTConfig.from_mapping,
    token_loss=nft_loss,
    loss_columns=lambda batch, settings, advantages: {
        CORRECT_COLUMN: batch.correct,
        ACCURACY_COLUMN: _accuracy(batch),
    },
)
