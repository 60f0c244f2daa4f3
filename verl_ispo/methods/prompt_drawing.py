"""What methods share that draw a step's prompts by their state: a draw with weights, and what contradicts it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from verl_ispo.methods.method import Contradiction, Lookup


def weighted_draw(keys: Sequence[str], weights: torch.Tensor, keep: int, seed: int, step: int) -> torch.Tensor:
    """`keep` rows without replacement, one after the other with probability weight / sum of the weights that are left.

    Rows with the largest log(u) / weight (Efraimidis and Spirakis 2006), u in (0, 1) from a hash of seed, step, key and
    how many rows before it have the same key. So the draw depends neither on the order of rows nor on a restart.

    Args:
        keys (`Sequence[str]`): of the rows.
        weights (`torch.Tensor` of shape `(rows,)`): above 0.
        keep (`int`): at most as many as there are rows.
        seed (`int`).
        step (`int`).

    Returns:
        `torch.Tensor` of shape `(keep,)`, int64.
    """
    seen: Counter[str] = Counter()
    draws = []
    for key, weight in zip(keys, weights.tolist(), strict=True):
        text = f"{seed}|{step}|{key}|{seen[key]}"
        seen[key] += 1
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")
        draws.append(math.log((number + 0.5) / 2**48) / weight)
    return torch.tensor(draws, dtype=torch.float64).argsort(descending=True, stable=True)[:keep]


def refuse_other_prompts(setting: Lookup) -> Iterator[Contradiction]:
    """Settings under which the drawn prompts would not be the ones that are trained on."""
    estimator, filter_key, mode = "algorithm.adv_estimator", "algorithm.filter_groups.enable", "trainer.v1.trainer_mode"
    tools_key = "actor_rollout_ref.rollout.multi_turn.enable"
    if setting(tools_key):
        yield Contradiction(
            estimator,
            tools_key,
            "the method knows a prompt again by its tokens, and agent loops with tools write others",
            f"Set {tools_key}=false.",
        )
    if setting(filter_key):
        yield Contradiction(
            estimator,
            filter_key,
            "the method draws a step's prompts beforehand, and refilled ones would not be drawn",
            f"Set {filter_key}=false.",
        )
    if setting(mode) not in ("ispo_sync", None):
        yield Contradiction(
            estimator,
            mode,
            "the method draws a step's prompts by the outcomes of the steps before, which asynchronous modes do not "
            "wait for",
            f"Set {mode}=ispo_sync.",
        )
