"""The registered advantage estimator ``ispo``: verl's GRPO on composite rewards, and never silently on anything else.

- With both weights 0 the composite is the outcome, so the result has to be bitwise verl's ``grpo``, also through
  verl's own dispatch.
- Inside the ISPO trainer (`handed_over`) the rewards are composite ones, and nothing else is changed: again
  bitwise GRPO.
- Elsewhere, with a weight that is not 0, it would be GRPO under another name: refused, naming the trainer modes.
- With a floor: (R - mean) / (max(std, floor) + 1e-6), against a loop.

Not exercised: the trainer that puts the composite into the rewards (the trainer tests), KL in the reward.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from tests.examples import examples
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over
from verl_ispo.trainer.method_adapter import ISPO_TRAINER_MODES, MissingSignalsError

compute_ispo_advantage = get_adv_estimator_fn("ispo")


def algorithm(normalize_by_std: bool = True, **ispo: Any) -> DictConfig:
    return OmegaConf.create({"norm_adv_by_std_in_grpo": normalize_by_std, "ispo": ispo})


@st.composite
def scored_batches(draw: st.DrawFn) -> dict[str, Any]:
    """Rewards on the last written token; groups of any size; some rows without any token."""
    lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=12))
    scores = draw(
        st.lists(
            st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-3, 3, width=32)),
            min_size=len(lengths),
            max_size=len(lengths),
        )
    )
    response_mask = (torch.arange(7) < torch.tensor(lengths).unsqueeze(-1)).long()
    rewards = torch.zeros(len(lengths), 7)
    for row, (length, score) in enumerate(zip(lengths, scores, strict=True)):
        rewards[row, max(length - 1, 0)] = score
    index = draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=len(lengths), max_size=len(lengths)))
    return {
        "token_level_rewards": rewards,
        "response_mask": response_mask,
        "index": np.array(index, dtype=object),
    }


# Read only where same_outcome_std asks for them.
NO_VERDICTS = torch.zeros(0, dtype=torch.bool)


def assert_same_bits(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> None:
    for left, right in zip(one, other, strict=True):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)


def test_verl_finds_it_by_name() -> None:
    assert compute_ispo_advantage.__module__ == "verl_ispo.trainer.method_adapter"


@given(scored_batches(), st.booleans())
@settings(max_examples=examples(100))
def test_zero_weights_give_the_bits_of_grpo(batch: dict[str, Any], normalize_by_std: bool) -> None:
    config = algorithm(normalize_by_std, ifd_weight=0.0, token_weight=0.0)
    expected = compute_grpo_outcome_advantage(**batch, norm_adv_by_std_in_grpo=normalize_by_std)
    assert_same_bits(compute_ispo_advantage(**batch, config=config), expected)


@given(scored_batches(), st.booleans())
@settings(max_examples=examples(50))
def test_composite_rewards_are_treated_as_grpo_treats_rewards(batch: dict[str, Any], normalize_by_std: bool) -> None:
    with handed_over(KnownOfBatch(correct=NO_VERDICTS)):
        found = compute_ispo_advantage(**batch, config=algorithm(normalize_by_std))
    assert_same_bits(found, compute_grpo_outcome_advantage(**batch, norm_adv_by_std_in_grpo=normalize_by_std))


@given(scored_batches(), st.booleans(), st.sampled_from([1e-3, 0.1, 2.0]))
@settings(max_examples=examples(100))
def test_a_floor_under_the_std(batch: dict[str, Any], normalize_by_std: bool, floor: float) -> None:
    with handed_over(KnownOfBatch(correct=NO_VERDICTS)):
        advantages, returns = compute_ispo_advantage(**batch, config=algorithm(normalize_by_std, min_group_std=floor))
    assert torch.equal(advantages, returns)
    rewards = batch["token_level_rewards"].double().sum(dim=-1).tolist()
    labels = batch["index"].tolist()
    for row, (reward, label) in enumerate(zip(rewards, labels, strict=True)):
        group = [other for other, its in zip(rewards, labels, strict=True) if its == label]
        expected, std = reward, 1.0
        if len(group) > 1:
            expected, std = reward - statistics.fmean(group), max(statistics.stdev(group), floor)
        if normalize_by_std:
            expected /= std + 1e-6
        for position, written in enumerate(batch["response_mask"][row].tolist()):
            # float32 rewards up to 3 over a std of 1e-3
            assert advantages[row, position].item() == pytest.approx(expected * written, rel=1e-5, abs=1e-3)


def test_the_floor_tames_a_group_of_almost_equal_rewards() -> None:
    """Rewards 1.000 and 1.002: GRPO makes full-size advantages of +-0.7 of them, a floor of 0.1 leaves +-0.01."""
    rewards = torch.tensor([[1.0], [1.002]])
    batch = {"token_level_rewards": rewards, "response_mask": torch.ones(2, 1), "index": np.array(["q", "q"])}
    with handed_over(KnownOfBatch(correct=NO_VERDICTS)):
        paper, _ = compute_ispo_advantage(**batch, config=algorithm())
        floored, _ = compute_ispo_advantage(**batch, config=algorithm(min_group_std=0.1))
    assert paper.flatten().tolist() == pytest.approx([-0.7071, 0.7071], abs=2e-3)
    assert floored.flatten().tolist() == pytest.approx([-0.01, 0.01], abs=1e-5)


def test_a_fixed_scale_where_outcomes_are_equal() -> None:
    """By hand, four rollouts per group, so 1 / sqrt(4) = 0.5 where none is correct; the mixed group keeps its own std.

    All wrong, rewards 0, 0, 0, 0.1: mean 0.025, so -0.025 / 0.5 = -0.05 and 0.075 / 0.5 = 0.15 (its own
    std of 0.05 would give -0.5 and 1.5). Mixed, rewards 1, 0, 0, 0: mean 0.25, std 0.5.
    """
    rewards = torch.tensor([[0.0], [0.0], [0.0], [0.1], [1.0], [0.0], [0.0], [0.0]])
    batch = {"token_level_rewards": rewards, "response_mask": torch.ones(8, 1), "index": np.array(list("aaaabbbb"))}
    correct = torch.tensor([False] * 4 + [True] + [False] * 3)
    with handed_over(KnownOfBatch(correct=correct)):
        advantages, _ = compute_ispo_advantage(**batch, config=algorithm(same_outcome_std="one_success"))
    assert advantages.flatten().tolist() == pytest.approx([-0.05] * 3 + [0.15] + [1.5] + [-0.5] * 3, abs=1e-5)


BATCH = {
    "token_level_rewards": torch.eye(2),
    "response_mask": torch.ones(2, 2),
    "index": np.array(["q", "q"], dtype=object),
}


@pytest.mark.parametrize(
    "config",
    [
        None,
        OmegaConf.create({}),
        algorithm(),
        algorithm(token_weight=0.0),
        algorithm(ifd_weight=0.0),
        algorithm(min_group_std=0.1),
    ],
)
def test_without_signals_it_fails_and_names_the_modes(config: DictConfig | None) -> None:
    with pytest.raises(MissingSignalsError) as caught:
        compute_ispo_advantage(**BATCH, config=config)
    assert "trainer.v1.trainer_mode" in str(caught.value)
    for mode in ("ispo_sync", "ispo_colocate_async", "ispo_separate_async"):
        assert mode in ISPO_TRAINER_MODES
        assert mode in str(caught.value)


def test_the_permission_ends_with_the_block_even_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), handed_over(KnownOfBatch(correct=NO_VERDICTS)):
        raise ZeroDivisionError
    with pytest.raises(MissingSignalsError):
        compute_ispo_advantage(**BATCH, config=algorithm())


def test_a_typo_in_the_settings_is_no_silent_default() -> None:
    with handed_over(KnownOfBatch(correct=NO_VERDICTS)), pytest.raises(ValueError, match="did you mean 'ifd_weight'"):
        compute_ispo_advantage(**BATCH, config=algorithm(ifd_weigth=0.1))


def through_verl(batch: dict[str, Any], adv_estimator: str, config: DictConfig) -> tuple[torch.Tensor, ...]:
    """As the V1 trainer calls it: the estimator's name, a DataProto, one key per row."""
    data = DataProto.from_dict(
        tensors={name: batch[name].clone() for name in ("token_level_rewards", "response_mask")},
        non_tensors={"uid": batch["index"]},
    )
    keys = [f"{label}_{row}_0" for row, label in enumerate(batch["index"])]
    data = compute_advantage_for_multi_trajectories(
        data,
        batch_keys=keys,
        adv_estimator=adv_estimator,
        norm_adv_by_std_in_grpo=config.norm_adv_by_std_in_grpo,
        config=config,
    )
    return data.batch["advantages"], data.batch["returns"]


@given(scored_batches().filter(lambda batch: bool(batch["response_mask"].any(-1).all())), st.booleans())
@settings(max_examples=examples(50))
def test_the_bits_of_grpo_through_verls_own_dispatch(batch: dict[str, Any], normalize_by_std: bool) -> None:
    config = algorithm(normalize_by_std, ifd_weight=0.0, token_weight=0.0)
    assert_same_bits(through_verl(batch, "ispo", config), through_verl(batch, "grpo", config))


def test_verls_stock_trainer_is_refused_through_its_own_dispatch() -> None:
    with pytest.raises(MissingSignalsError, match="ispo_sync"):
        through_verl(BATCH, "ispo", algorithm())
