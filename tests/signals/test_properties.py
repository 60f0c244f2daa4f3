"""Invariances and invariants, on random batches and random settings.

A rollout's reward is a function of that rollout alone, and its advantage of its group alone. So the order of rows,
the width of the padding, what the padding holds (NaN and infinity too), the names of the groups and the rest of the
batch change nothing: not a bit where no sum is taken in another order, 1e-6 where one is.

Further: every output is finite for finite input; without a critical token R_token is 0; with both weights 0 the
composite is bitwise the score; half-precision input gives what the same numbers give in float32.

Not exercised: agreement with the method's formulas (test_reference), bad input (test_bad_input).
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.signals.loop_reference import Rollout
from tests.signals.rollout_batches import (
    batches,
    configs,
    library_guarded,
    library_reward,
    reward_inputs,
    right_answer_scores,
)
from verl_ispo import ISPOConfig, ISPOReward, compute_ispo_reward
from verl_ispo.signals.groups import RolloutGroups, group_advantage, guarded_reward
from verl_ispo.signals.right_answer import RightAnswerScores

PER_ROLLOUT = ("total", "ifd", "token_reward", "answer_found")
PER_TOKEN = ("critical_mask", "entropy_mask", "drift_mask")


def assert_same_bits(one: ISPOReward, other: ISPOReward, width: int) -> None:
    for name in PER_ROLLOUT:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("outcome", "ifd", "token", "missing_answer"):
        assert torch.equal(getattr(one.parts, name), getattr(other.parts, name)), name
    for name in PER_TOKEN:
        assert torch.equal(getattr(one, name)[:, :width], getattr(other, name)[:, :width]), name
        assert not getattr(other, name)[:, width:].any(), name


def guarded(batch: list[Rollout], config: ISPOConfig, labels: list[object] | None = None) -> tuple[torch.Tensor, ...]:
    """Guarded composite and advantage."""
    groups = RolloutGroups.from_labels(labels or [rollout.group for rollout in batch])
    correct = torch.tensor([rollout.correct for rollout in batch])
    reward = library_reward(batch, config)
    composite = guarded_reward(reward, correct, groups, config, right_answer_scores(batch)).total
    # In float64, so that the order of a sum moves an advantage by far less than what is compared.
    return composite, group_advantage(composite.double(), groups, True, config.min_group_std)


@given(
    batches(),
    configs(),
    st.integers(0, 5),
    st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e30, -1e30]),
)
@settings(max_examples=examples(100))
def test_padding_and_what_it_holds(batch: list[Rollout], config: ISPOConfig, padding: int, junk: float) -> None:
    width = max(len(rollout.token_ids) for rollout in batch)
    assert_same_bits(library_reward(batch, config), library_reward(batch, config, padding, junk), width)
    assert_same_bits(library_guarded(batch, config), library_guarded(batch, config, padding, junk), width)


@given(batches(), configs(), st.randoms(use_true_random=False))
@settings(max_examples=examples(75))
def test_order_of_rows(batch: list[Rollout], config: ISPOConfig, random: object) -> None:
    order = list(range(len(batch)))
    random.shuffle(order)
    shuffled = [batch[row] for row in order]
    one, other = library_reward(batch, config), library_reward(shuffled, config)
    for name in (*PER_ROLLOUT, *PER_TOKEN):
        assert torch.equal(getattr(one, name)[order], getattr(other, name)), name
    for before, after in zip(guarded(batch, config), guarded(shuffled, config), strict=True):
        assert after.tolist() == pytest.approx(before[order].tolist(), rel=1e-6, abs=1e-6)


@given(batches(), configs())
@settings(max_examples=examples(50))
def test_rest_of_the_batch(batch: list[Rollout], config: ISPOConfig) -> None:
    """Each rollout alone, and each group alone, gets what it gets in the batch."""
    reward = library_reward(batch, config)
    for row, rollout in enumerate(batch):
        assert torch.equal(library_reward([rollout], config).total, reward.total[row : row + 1])
    composite, advantage = guarded(batch, config)
    for label in {rollout.group for rollout in batch}:
        rows = [row for row, rollout in enumerate(batch) if rollout.group == label]
        alone = guarded([batch[row] for row in rows], config)
        assert alone[0].tolist() == composite[rows].tolist()
        assert alone[1].tolist() == pytest.approx(advantage[rows].tolist(), rel=1e-6, abs=1e-6)


@given(
    batches(),
    configs(),
    st.lists(
        st.one_of(st.text(max_size=3), st.integers(), st.tuples(st.integers(0, 2), st.integers(0, 2))),
        min_size=3,
        max_size=3,
        unique=True,
    ),
)
@settings(max_examples=examples(75))
def test_names_of_the_groups(batch: list[Rollout], config: ISPOConfig, names: list[object]) -> None:
    """Any hashable labels will do: only which are equal matters."""
    rename = dict(zip(["prompt-0", "prompt-1", "prompt-2"], names, strict=True))
    renamed = guarded(batch, config, [rename[rollout.group] for rollout in batch])
    for before, after in zip(guarded(batch, config), renamed, strict=True):
        assert after.tolist() == pytest.approx(before.tolist(), rel=1e-6, abs=1e-6)


@given(st.lists(st.integers(0, 4), max_size=20))
def test_group_sizes(labels: list[int]) -> None:
    groups = RolloutGroups.from_labels(labels)
    assert groups.count == len(set(labels))
    assert sorted(groups.size.tolist()) == sorted(labels.count(label) for label in set(labels))
    for one, one_id in zip(labels, groups.ids.tolist(), strict=True):
        for other, other_id in zip(labels, groups.ids.tolist(), strict=True):
            assert (one == other) == (one_id == other_id)


finite = st.floats(-1e4, 1e4, width=32)


@given(st.data(), configs(), st.integers(1, 5), st.integers(0, 12), st.integers(1, 4))
@settings(max_examples=examples(100))
def test_finite_in_finite_out(
    data: st.DataObject, config: ISPOConfig, rows: int, width: int, answer_width: int
) -> None:
    """Log-probs down to -10000 nats, entropies of any sign, scores up to 10000: nothing overflows or divides by 0."""

    def tensor(elements: st.SearchStrategy[float], *shape: int) -> torch.Tensor:
        count = math.prod(shape)
        return torch.tensor(data.draw(st.lists(elements, min_size=count, max_size=count))).reshape(shape)

    correct = tensor(st.booleans(), rows).bool()
    reward = compute_ispo_reward(
        score=tensor(finite, rows),
        correct=correct,
        log_prob=tensor(finite, rows, width),
        ref_log_prob=tensor(finite, rows, width),
        entropy=tensor(finite, rows, width),
        response_mask=tensor(st.booleans(), rows, width),
        answer_log_prob=tensor(finite, rows, answer_width),
        ablated_answer_log_prob=tensor(finite, rows, answer_width),
        answer_mask=tensor(st.booleans(), rows, answer_width),
        config=config,
        entropy_candidate_mask=tensor(st.booleans(), rows, width),
    )
    groups = RolloutGroups.from_labels(data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)))
    key_mask = tensor(st.booleans(), rows, 2).bool()
    scores = RightAnswerScores(tensor(finite, rows, 2), tensor(finite, rows, 2), key_mask, torch.zeros(rows).bool())
    composite = guarded_reward(reward, correct, groups, config, scores).total
    for values in (reward.total, reward.ifd, reward.token_reward, composite):
        assert torch.isfinite(values).all()
    for normalize_by_std in (True, False):
        advantage = group_advantage(composite, groups, normalize_by_std, config.min_group_std)
        assert torch.isfinite(advantage).all()


@given(batches(), configs(critical_selection="intersection", drift_threshold=100.0))
@settings(max_examples=examples(50))
def test_without_a_critical_token_the_token_reward_is_zero(batch: list[Rollout], config: ISPOConfig) -> None:
    """At step 0 the policy equals its base, so this is where every run starts; here by a threshold nobody reaches."""
    reward = library_reward(batch, config)
    assert not reward.critical_mask.any()
    assert reward.token_reward.tolist() == [0.0] * len(batch)


@given(batches(), configs())
@settings(max_examples=examples(50))
def test_a_policy_equal_to_its_base_has_no_critical_token(batch: list[Rollout], config: ISPOConfig) -> None:
    config = dataclasses.replace(config, critical_selection="intersection", drift_threshold=0.3)
    unmoved = [dataclasses.replace(rollout, ref_log_prob=rollout.log_prob) for rollout in batch]
    assert not library_reward(unmoved, config).critical_mask.any()


@given(batches(), configs(ifd_weight=0.0, token_weight=0.0, missing_answer="zero"))
@settings(max_examples=examples(50))
def test_zero_weights_leave_the_score_to_the_bit(batch: list[Rollout], config: ISPOConfig) -> None:
    score = torch.tensor([rollout.score for rollout in batch])
    assert torch.equal(library_reward(batch, config).total, score)
    assert torch.equal(guarded(batch, config)[0], score)


@given(batches(), configs())
@settings(max_examples=examples(50))
def test_critical_tokens_lie_in_the_response(batch: list[Rollout], config: ISPOConfig) -> None:
    reward, mask = library_reward(batch, config), reward_inputs(batch)["response_mask"]
    for name in PER_TOKEN:
        assert not (getattr(reward, name) & ~mask).any(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(batches(), configs(), st.integers(0, 2**31))
@settings(max_examples=examples(50))
def test_half_precision_input_is_computed_in_float32(
    dtype: torch.dtype, batch: list[Rollout], config: ISPOConfig, seed: int
) -> None:
    """What is half-precise is the input. Differences and means are not: bfloat16 would round them to 3 digits."""
    inputs = reward_inputs(batch)
    noise = torch.Generator().manual_seed(seed)
    halved = {
        name: (value + 0.01 * torch.randn(value.shape, generator=noise)).to(dtype)
        if value.is_floating_point()
        else value
        for name, value in inputs.items()
    }
    widened = {name: value.float() if value.is_floating_point() else value for name, value in halved.items()}
    one = compute_ispo_reward(**halved, config=config)
    other = compute_ispo_reward(**widened, config=config)
    assert_same_bits(one, other, inputs["log_prob"].shape[1])


def test_signals_are_detached() -> None:
    leaf = torch.full((1, 2), -1.0, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    reward = compute_ispo_reward(
        score=torch.ones(1),
        correct=torch.ones(1, dtype=torch.bool),
        log_prob=leaf,
        ref_log_prob=leaf - 1,
        entropy=leaf + 2,
        response_mask=mask,
        answer_log_prob=leaf,
        ablated_answer_log_prob=leaf,
        answer_mask=mask,
        config=ISPOConfig(),
    )
    assert not reward.total.requires_grad


def test_inputs_are_left_as_they_were() -> None:
    batch = [
        Rollout(
            "q",
            1.0,
            True,
            (1, 2),
            (True, False),
            (-1.0, -2.0),
            (-2.0, -2.0),
            (1.0, 1.0),
            0,
            1,
            2,
            (-3.0,),
            (True, True),
        )
    ]
    inputs = reward_inputs(batch)
    before = {name: value.clone() for name, value in inputs.items()}
    compute_ispo_reward(**inputs, config=ISPOConfig())
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)


def test_masks_may_be_of_any_numeric_type() -> None:
    """verl's response masks are integers."""
    batch = [
        Rollout(
            "q",
            1.0,
            True,
            (1, 2),
            (True, False),
            (-1.0, -2.0),
            (-2.0, -2.0),
            (1.0, 1.0),
            0,
            1,
            2,
            (-3.0,),
            (True, True),
        )
    ]
    inputs = reward_inputs(batch)
    as_numbers = {name: value.long() if value.dtype == torch.bool else value for name, value in inputs.items()}
    one, other = (compute_ispo_reward(**given_inputs, config=ISPOConfig()) for given_inputs in (inputs, as_numbers))
    assert_same_bits(one, other, 2)
