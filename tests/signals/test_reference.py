"""The library against the float64 loops of `loop_reference`, on random batches and random settings.

Checked to 1e-5 (float32 keeps 1.2e-7 of values up to 12, and the means are over at most 24 of them): Conditional IFD,
both filters, the critical tokens, the token reward, the composite, the guards, the group advantage. Which tokens are
chosen and who violates the order are compared exactly: all values are multiples of 1/16, so float32 subtracts them
without rounding.

Not exercised: how log-probs and entropies come about (tests/trainer), where an answer lies (test_answer_span), the
metrics (test_metrics), and verl's own estimator (tests/trainer/test_advantage).
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.signals.loop_reference import Rollout, reference_advantage, reference_guarded, reference_reward
from tests.signals.rollout_batches import batches, configs, library_guarded, library_reward
from verl_ispo import ISPOConfig
from verl_ispo.signals.critical_tokens import entropy_filter
from verl_ispo.signals.groups import RolloutGroups, group_advantage, guarded_reward, one_success_std
from verl_ispo.signals.running_ifd import RunningIFD

TOLERANCE = 1e-5


def close(values: list[float]) -> object:
    return pytest.approx(values, rel=TOLERANCE, abs=TOLERANCE)


def rollout_without_tokens(group: str = "q", correct: bool = True, score: float | None = None) -> Rollout:
    """A rollout without tokens, for tests that look at groups alone."""
    score = float(correct) if score is None else score
    return Rollout(group, score, correct, (), (), (), (), (), 0, 0, 0, (), ())


def positions(mask: torch.Tensor) -> list[frozenset[int]]:
    return [frozenset(row.nonzero().flatten().tolist()) for row in mask]


running_means = st.sampled_from([None, -1.5, 0.0, 0.75])


@given(batches(), configs(), running_means, running_means)
@settings(max_examples=examples(200))
def test_every_part_of_the_composite_reward(
    batch: list[Rollout], config: ISPOConfig, right: float | None, wrong: float | None
) -> None:
    reward = library_reward(batch, config, running_ifd=RunningIFD(right, wrong))
    expected = [reference_reward(rollout, config, (right, wrong)) for rollout in batch]

    assert positions(reward.entropy_mask) == [one.entropy_positions for one in expected]
    assert positions(reward.drift_mask) == [one.drift_positions for one in expected]
    assert positions(reward.critical_mask) == [one.critical_positions for one in expected]
    assert reward.measured_ifd.tolist() == close([one.measured_ifd for one in expected])
    assert reward.ifd.tolist() == close([one.ifd for one in expected])
    assert reward.token_reward.tolist() == close([one.token_reward for one in expected])
    assert reward.total.tolist() == close([one.total for one in expected])
    assert reward.parts.outcome.tolist() == [rollout.score for rollout in batch]
    assert reward.answer_found.tolist() == [rollout.answered for rollout in batch]
    assert reward.total.dtype == reward.ifd.dtype == reward.token_reward.dtype == torch.float32


@given(batches(groups=2), configs())
@settings(max_examples=examples(200))
def test_guards_and_group_advantage(batch: list[Rollout], config: ISPOConfig) -> None:
    groups = RolloutGroups.from_labels([rollout.group for rollout in batch])
    correct = torch.tensor([rollout.correct for rollout in batch])
    reward = library_guarded(batch, config)
    expected = reference_guarded(batch, config)
    guarded = reward.total
    assert guarded.tolist() == close([parts.total for parts in expected])
    for name in ("outcome", "ifd", "token", "missing_answer"):
        assert getattr(reward.parts, name).tolist() == close([getattr(parts, name) for parts in expected]), name

    # The advantage is compared on the library's own rewards: where a group's std is near 0 the division by
    # std + 1e-6 magnifies a rounding of the reward a millionfold, which says nothing about the advantage.
    for normalize_by_std in (True, False):
        same_outcome = groups.all_wrong(correct) | groups.all_right(correct)
        advantage = group_advantage(
            guarded.double(),
            groups,
            normalize_by_std,
            config.min_group_std,
            same_outcome if config.same_outcome_std == "one_success" else None,
        )
        assert advantage.tolist() == close(
            reference_advantage(
                guarded.double().tolist(), batch, normalize_by_std, config.min_group_std, config.same_outcome_std
            )
        )


@pytest.mark.parametrize("size", [2, 3, 8, 64])
def test_one_success_std_is_the_std_of_one_success(size: int) -> None:
    outcomes = torch.zeros(size, dtype=torch.float64)
    outcomes[0] = 1
    assert one_success_std(torch.tensor([size])).item() == pytest.approx(outcomes.std().item(), rel=1e-6)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.integers(-32, 32), min_size=12, max_size=12),
    st.sampled_from([0.0, 0.05, 0.5]),
)
@settings(max_examples=examples(100))
def test_group_advantage_in_float32(labels: list[int], sixteenths: list[int], min_group_std: float) -> None:
    """On rewards whose sums float32 holds exactly, so that no std is the rounding of a 0."""
    rewards = [value / 16 for value in sixteenths[: len(labels)]]
    groups = RolloutGroups.from_labels(labels)
    batch = [rollout_without_tokens(group=str(label)) for label in labels]
    for normalize_by_std in (True, False):
        advantage = group_advantage(torch.tensor(rewards), groups, normalize_by_std, min_group_std)
        expected = reference_advantage(rewards, batch, normalize_by_std, min_group_std)
        assert advantage.tolist() == close(expected)


@pytest.mark.parametrize("fraction", [1e-12, 1e-3, 0.07, 0.1, 0.15, 1 / 3, 0.9999, 1.0])
def test_count_of_the_entropy_filter_is_the_ceiling_of_the_decimal(fraction: float) -> None:
    """ceil(k * n) of the number that the user wrote: 0.07 * 100 is 7 tokens, though in binary it is a little more.

    The ceiling of anything above 0 is at least 1, so a response is never without an entropy-filtered token.
    """
    lengths = [0, 1, 2, 3, 7, 10, 30, 99, 100, 101, 300]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)
    chosen = entropy_filter(torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)), mask, fraction)
    assert chosen.sum(dim=-1).tolist() == [ceil(Fraction(repr(fraction)) * length) for length in lengths]


def test_equal_entropies_are_chosen_from_the_front() -> None:
    entropy = torch.tensor([[1.0, 2.0, 1.0, 1.0, 2.0, 0.5, 1.0, 1.0, 1.0, 0.0]])
    chosen = entropy_filter(entropy, torch.ones(1, 10, dtype=torch.bool), 0.4)
    assert positions(chosen) == [frozenset({1, 4, 0, 2})]


def test_a_worked_example() -> None:
    """By hand, with the paper's settings. Ten tokens, so the entropy filter keeps one.

    Right rollout: token 3 has the highest entropy and drift -0.2 - (-1.2) = 1.0, so it is critical and R_token = -0.2.
    IFD = ((-0.1 - -1.1) + (-0.3 - -0.9)) / 2 = 0.8. R = 1 + 0.5 * 0.8 + 0.1 * -0.2 = 1.38.
    Wrong rollout: the same token, whose entropy of 0.2 lies 0.1 under the floor, so R_token = 0.2 - 0.1 = 0.1.
    R = 0 - 0.5 * 0.8 + 0.1 * 0.1 = -0.39.
    """
    log_prob = (-0.5, -0.5, -0.5, -0.2, -0.5, -0.5, -0.5, -0.5, -0.1, -0.3)
    common = {
        "group": "q",
        "token_ids": (1,) * 10,
        "written": (True,) * 10,
        "log_prob": log_prob,
        "ref_log_prob": (*log_prob[:3], -1.2, *log_prob[4:]),
        "entropy": (0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1),
        "lead_in_start": 7,
        "answer_start": 8,
        "answer_end": 10,
        "ablated": (-1.1, -0.9),
        "candidate": (True,) * 10,
    }
    right, wrong = Rollout(score=1.0, correct=True, **common), Rollout(score=0.0, correct=False, **common)
    reward = library_reward([right, wrong], ISPOConfig())
    assert reward.ifd.tolist() == close([0.8, 0.8])
    assert reward.token_reward.tolist() == close([-0.2, 0.1])
    assert reward.total.tolist() == close([1.38, -0.39])
    assert [reference_reward(one, ISPOConfig()).total for one in (right, wrong)] == close([1.38, -0.39])


def test_guards_leave_mixed_groups_alone_and_silence_the_others() -> None:
    """`off` is GRPO in the guarded groups: with a 0/1 score their advantage is exactly 0, and only theirs."""
    config = ISPOConfig(all_wrong_groups="off", all_right_groups="off")
    verdicts = [False, False, True, True, True, False]
    labels = ["wrong", "wrong", "right", "right", "mixed", "mixed"]
    batch = [
        Rollout(label, float(ok), ok, (1,), (True,), (-1.0 - row,), (-9.0,), (1.0,), 0, 0, 1, (-2.0,), (True,))
        for row, (label, ok) in enumerate(zip(labels, verdicts, strict=True))
    ]
    groups = RolloutGroups.from_labels(labels)
    reward = library_reward(batch, config)
    guarded = guarded_reward(reward, torch.tensor(verdicts), groups, config).total
    advantage = group_advantage(guarded, groups, normalize_by_std=True, min_group_std=0.0)
    assert advantage[:4].tolist() == [0.0] * 4
    assert guarded[4:].tolist() == reward.total[4:].tolist()
    assert advantage[4:].abs().min() > 0


def test_defaults_are_no_guard() -> None:
    batch = [rollout_without_tokens(correct=False), rollout_without_tokens(correct=False)]
    reward = library_reward(batch, ISPOConfig())
    groups = RolloutGroups.from_labels(["q", "q"])
    guarded = guarded_reward(reward, torch.tensor([False, False]), groups, ISPOConfig()).total
    assert torch.equal(guarded, reward.total)


def test_an_empty_batch_has_empty_rewards() -> None:
    groups = RolloutGroups.from_labels([])
    reward = library_reward([], ISPOConfig(all_wrong_groups="off", missing_answer="group_min"))
    guarded = guarded_reward(reward, torch.zeros(0, dtype=torch.bool), groups, ISPOConfig()).total
    assert guarded.shape == group_advantage(guarded, groups, True, 0.1).shape == (0,)
