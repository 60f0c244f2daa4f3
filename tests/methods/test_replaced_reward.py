"""Controls whose reward is not the verdict: random, format, inverted and majority vote, each by hand.

- The reward of each, and that GRPO's advantage is taken of it: the same as verl's GRPO given these rewards as scores.
- A coin is the same for every order of rows, any padding and after a restart; another seed, step, prompt or text gives
  another one, and so does a repeat of the same text.
- Majority vote's ties, missing answers and spellings.
- What needs no labels asks for no verdict, and is refused together with dynamic sampling, which goes by it.

Not exercised: the effect on training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn

from verl_ispo.methods.answer_votes import MAX_ANSWER_CHARS, answer_key
from verl_ispo.methods.format_reward import format_reward
from verl_ispo.methods.inverted_reward import inverted_reward
from verl_ispo.methods.majority_vote import majority_vote_reward
from verl_ispo.methods.method import MethodBatch, Need
from verl_ispo.methods.random_reward import RandomRewardConfig, coin, random_reward
from verl_ispo.methods.registry import methods
from verl_ispo.methods.replaced_reward import advantage_of_reward
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer import method_adapter  # noqa: F401 - registers the methods with verl
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over

CONTROLS = ("random_reward", "format_reward", "inverted_reward", "majority_vote")
WITHOUT_LABELS = ("random_reward", "format_reward", "majority_vote")


def batch(labels: str, **fields: Any) -> MethodBatch:
    """Rollouts of two tokens in groups by letter; a dot is a padding row."""
    mask = torch.tensor([[int(label != ".")] * 2 for label in labels])
    groups = RolloutGroups.from_labels([label if label != "." else f"{row}" for row, label in enumerate(labels)])
    return MethodBatch(rewards=torch.zeros(mask.shape), response_mask=mask, groups=groups, **fields)


def coins(
    ids: Sequence[Sequence[int]], keys: Sequence[str], labels: str, step: int = 1, **settings: Any
) -> list[float]:
    width = max(map(len, ids))
    padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    rows = MethodBatch(
        rewards=torch.zeros(mask.shape),
        response_mask=mask,
        groups=RolloutGroups.from_labels(labels),
        response_ids=padded,
        prompt_keys=keys,
        step=step,
    )
    return random_reward(rows, RandomRewardConfig(**settings)).tolist()


@pytest.mark.parametrize("normalize_by_std", [True, False])
def test_the_advantage_is_grpos_of_the_reward(normalize_by_std: bool) -> None:
    rewards = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    labels = "aaabbc"
    scores = torch.zeros(6, 2)
    scores[:, 1] = torch.tensor(rewards)
    expected, _ = compute_grpo_outcome_advantage(scores, torch.ones(6, 2), list(labels), 1e-6, normalize_by_std)
    found = advantage_of_reward(torch.tensor(rewards), batch(labels, normalize_by_std=normalize_by_std))
    torch.testing.assert_close(found.float(), expected[:, 0])


def test_a_row_without_tokens_gets_nothing_and_changes_nothing() -> None:
    reward = torch.tensor([1.0, 0.0, 1.0])
    assert advantage_of_reward(reward, batch("aa."))[2] == 0
    assert torch.equal(advantage_of_reward(reward, batch("aa."))[:2], advantage_of_reward(reward[:2], batch("aa")))


def test_the_inverted_reward_is_grpo_with_the_sign_turned() -> None:
    correct = torch.tensor([True, False, False, True])
    rows = batch("aaaa", correct=correct)
    found = methods()["inverted_reward"].advantage(rows, None)
    torch.testing.assert_close(found, -advantage_of_reward(correct, rows))
    assert inverted_reward(correct).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_the_format_reward_reads_no_answer() -> None:
    rows = batch("aab.", answer_texts=("7", None, "nonsense", None), correct=torch.tensor([False, True, False, False]))
    assert format_reward(rows).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_a_coin_does_not_depend_on_rows_or_padding() -> None:
    ids, keys, labels = [[5, 6], [5, 7, 8], [5, 6], [9]], ["p", "p", "q", "q"], "aabb"
    found = coins(ids, keys, labels)
    order = [3, 1, 0, 2]
    shuffled = coins([ids[row] for row in order], [keys[row] for row in order], [labels[row] for row in order])
    assert shuffled == [found[row] for row in order]
    assert [coins([row], [key], "a")[0] for row, key in zip(ids, keys, strict=True)] == found


def test_what_a_coin_depends_on() -> None:
    """Each change of one of the hashed parts redraws about half of 200 coins."""
    default = RandomRewardConfig()
    drawn = [coin(default, 3, "p", [token], 0) for token in range(200)]
    others = {
        "seed": [coin(RandomRewardConfig(seed=1), 3, "p", [token], 0) for token in range(200)],
        "step": [coin(default, 4, "p", [token], 0) for token in range(200)],
        "prompt": [coin(default, 3, "q", [token], 0) for token in range(200)],
        "repeat": [coin(default, 3, "p", [token], 1) for token in range(200)],
        "tokens": [coin(default, 3, "p", [token, token], 0) for token in range(200)],
    }
    for what, other in others.items():
        assert 70 < sum(one != two for one, two in zip(drawn, other, strict=True)) < 130, what


def test_equal_rollouts_of_a_group_have_coins_of_their_own() -> None:
    assert sorted(set(coins([[5]] * 20, ["p"] * 20, "a" * 20))) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("probability", "low", "high"), [(0.0, 0, 0), (0.25, 200, 300), (0.5, 440, 560), (1.0, 1e3, 1e3)]
)
def test_the_share_of_ones(probability: float, low: int, high: int) -> None:
    found = coins([[token] for token in range(1000)], ["p"] * 1000, ["a"] * 1000, probability=probability)
    assert low <= sum(found) <= high


@pytest.mark.parametrize(
    ("labels", "answers", "rewards"),
    [
        ("aaaa", ["4", "4", "5", "6"], [1, 1, 0, 0]),
        ("aaaa", ["4", "4", "5", "5"], [1, 1, 1, 1]),
        ("aaaa", ["4", "5", "6", None], [1, 1, 1, 0]),
        ("aaaa", [None, None, None, "5"], [0, 0, 0, 1]),
        ("aaaa", [None, None, " ", "$$"], [0, 0, 0, 0]),
        ("aab", ["4", "5", "4"], [1, 1, 1]),
        ("abab", ["4", "4", "4", "5"], [1, 1, 1, 1]),
        ("a.b", ["4", None, None], [1, 0, 0]),
        ("aaaa", [r"\frac12", r" \dfrac{1} 2", r"\tfrac 12$", "0.5"], [1, 0, 1, 0]),
        ("aaa", [r"\left(1, 2\right)", "(1,2)", r"\leftarrow"], [1, 1, 0]),
    ],
)
def test_the_vote_by_hand(labels: str, answers: list[str | None], rewards: list[float]) -> None:
    assert majority_vote_reward(batch(labels, answer_texts=answers)).tolist() == rewards


def test_a_very_long_answer_is_compared_as_it_is() -> None:
    long = "1 " * MAX_ANSWER_CHARS
    assert answer_key(long) == long


@pytest.mark.parametrize("name", CONTROLS)
def test_only_what_reads_the_verdict_asks_for_it(name: str) -> None:
    method = methods()[name]
    assert method.reward is not None
    assert (Need.CORRECT in method.needs) == (name not in WITHOUT_LABELS)


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_verls_estimator_runs_without_a_verdict(name: str) -> None:
    """With the fields that it has declared, and a scorer that gives nothing."""
    fields = {"answer_texts": ("4", None, "4")}
    if name == "random_reward":
        fields = {"response_ids": torch.arange(6).reshape(3, 2), "prompt_keys": ("p", "p", "p")}
    with handed_over(KnownOfBatch(**fields)):
        advantages, _ = get_adv_estimator_fn(name)(torch.zeros(3, 2), torch.ones(3, 2), np.array(["p"] * 3))
    assert torch.isfinite(advantages).all()
    assert advantages.shape == (3, 2)


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_dynamic_sampling_by_the_verdict_is_refused(name: str) -> None:
    (found,) = methods()[name].contradictions({"algorithm.filter_groups.enable": True}.get)
    assert "the scorer's verdict" in found.why
    assert not list(methods()[name].contradictions({}.get))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        *[("probability", bad, "[0, 1]") for bad in (-0.1, 1.1, "0.5", None, True)],
        *[("seed", bad, "whole number from 0") for bad in (-1, 0.5, "1", None, True)],
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.random_reward\.{key}") as caught:
        RandomRewardConfig.from_mapping({key: value})
    assert allowed in str(caught.value)
    assert repr(value) in str(caught.value)
