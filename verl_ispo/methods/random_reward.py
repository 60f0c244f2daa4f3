"""Random reward, a control (arXiv 2506.10947): GRPO's advantage on a coin for each rollout, whatever is in it.

The coin is 1 if the first 64 bits of a hash are below probability * 2^64. What is hashed (ours) is the seed, the step,
the prompt, the rollout's token ids and how many rollouts before it in its group have the same ones. So a coin depends
neither on the order of rows (up to equal rollouts), on padding or on workers, nor on whether the run has been resumed.

Source: summaries by others, which agree on the coin and on probability 0.5. Groups learn whatever their outcomes are,
unless all their coins are equal; a rollout alone in its group has its coin as its advantage.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, check_whole_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.methods.replaced_reward import advantage_of_reward, refuse_filter_by_verdict

SECTION = "algorithm.random_reward"


@dataclass(frozen=True)
class RandomRewardConfig:
    """Settings of the random reward, the keys of ``algorithm.random_reward``.

    Args:
        probability (`float`, *optional*, defaults to `0.5`):
            Of the reward 1. In [0, 1]; at both ends there is nothing to learn.
        seed (`int`, *optional*, defaults to `0`):
            Of the coins. At least 0. Ours.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    probability: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.probability", self.probability, low=0, high=1)
        check_whole_number(f"{SECTION}.seed", self.seed)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> RandomRewardConfig:
        """Build from Hydra's ``algorithm.random_reward``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def coin(config: RandomRewardConfig, step: int, prompt_key: str, token_ids: Sequence[int], repeat: int) -> bool:
    """One rollout's coin.

    The hash is BLAKE2b with 8 bytes, read as a big-endian number, of the text
    ``seed|step|prompt key|repeat|token ids joined by commas``.

    Args:
        config (`RandomRewardConfig`).
        step (`int`): of the training.
        prompt_key (`str`): of `MethodBatch.prompt_keys`.
        token_ids (`Sequence[int]`): those that the policy wrote.
        repeat (`int`): how many rollouts before it in its group have the same token ids.
    """
    text = f"{config.seed}|{step}|{prompt_key}|{repeat}|{','.join(map(str, token_ids))}"
    value = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return value < config.probability * 2**64


def random_reward(batch: MethodBatch, config: RandomRewardConfig) -> torch.Tensor:
    """Each rollout's coin, `(batch,)` float64."""
    seen: Counter[tuple[int, tuple[int, ...]]] = Counter()
    coins = []
    rows = zip(batch.response_ids, batch.response_mask.bool(), batch.groups.ids.tolist(), strict=True)
    for (ids, mask, group), prompt_key in zip(rows, batch.prompt_keys, strict=True):
        written = tuple(ids[mask].tolist())
        coins.append(coin(config, batch.step, prompt_key, written, repeat=seen[group, written]))
        seen[group, written] += 1
    return torch.tensor(coins, dtype=torch.float64, device=batch.response_mask.device)


def _advantage(batch: MethodBatch, config: RandomRewardConfig) -> torch.Tensor:
    return advantage_of_reward(random_reward(batch, config), batch)


METHOD = Method(
    name="random_reward",
    advantage=_advantage,
    needs=frozenset({Need.RESPONSE_IDS, Need.PROMPT_KEY}),
    settings=RandomRewardConfig.from_mapping,
    contradictions=refuse_filter_by_verdict,
    reward="a coin for each rollout",
)
