"""GTPO (arXiv 2508.04349): token rewards, their normalization, the registered estimator and the preset.

- A group worked by hand; random batches against loops in float64, under every setting.
- What normalizing apart implies: the advantages of a group's correct tokens add up to 0, so do those of its incorrect
  ones; neither weight has an influence; equal entropies leave nothing. So a correct rollout is not preferred to an
  incorrect one.
- Normalized together (ours): with equal entropies, or without the entropy term, and equal lengths, verl's GRPO.
- All-right groups get full-size advantages by entropy; all-wrong ones none, or the same with ``paper``; a group of one
  rollout gets none.
- Padding and what it holds, the order of rows and the rest of the batch change nothing; everything is finite.

Not exercised: that the trainer hands over the right entropies, the effect on training, the authors' own numbers (none
are known).
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn

import verl_ispo
from tests.examples import examples
from tests.methods.gtpo_reference import BATCHES, SETTINGS, EntropyRollout, reference_advantage, tensors
from verl_ispo.methods.gtpo import GTPOConfig, entropy_rewards, gtpo_advantage
from verl_ispo.signals.checks import NonFiniteSignalError, SignalShapeError
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over
from verl_ispo.trainer.method_adapter import MissingSignalsError

compute_gtpo_advantage = get_adv_estimator_fn("gtpo")


def rollout(correct: bool, *entropy: float | None, group: str = "a") -> EntropyRollout:
    """A rollout; `None` stands for a position that is not written."""
    return EntropyRollout(group, correct, tuple(h or 0.0 for h in entropy), tuple(h is not None for h in entropy))


def advantage(batch: list[EntropyRollout], by_std: bool = True, **config: Any) -> torch.Tensor:
    return gtpo_advantage(**tensors(batch), config=GTPOConfig(**config), normalize_by_std=by_std)


MIXED = [rollout(True, 1.0, 2.0), rollout(True, 3.0), rollout(False, 1.0, 1.0), rollout(False, 0.5, None)]


def test_rewards_by_hand() -> None:
    """At position 0: correct entropies 1 and 3 (shares 1/4, 3/4 of 2), incorrect 1/H 1 and 2 (1/3, 2/3 of 2)."""
    batch = tensors(MIXED)
    rewards = entropy_rewards(
        batch["entropy"], batch["response_mask"].bool(), batch["correct"], batch["groups"], GTPOConfig()
    )
    expected = [[1.05, 1.1], [1.15, 0.0], [-1 - 0.2 / 3, -1.1], [-1 - 0.4 / 3, 0.0]]
    assert rewards.tolist() == [pytest.approx(row, abs=1e-8) for row in expected]


def test_advantage_by_hand() -> None:
    """Correct: mean 1.1, std sqrt((0.05^2 + 0.05^2) / 2) = 0.05. Incorrect: mean -1.1, std 0.1 / 3."""
    expected = [[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
    assert advantage(MIXED).tolist() == [pytest.approx(row, abs=1e-4) for row in expected]
    centred = [[-0.05, 0.0], [0.05, 0.0], [0.1 / 3, 0.0], [-0.1 / 3, 0.0]]
    assert advantage(MIXED, by_std=False).tolist() == [pytest.approx(row, abs=1e-8) for row in centred]


@given(BATCHES, SETTINGS, st.booleans())
@settings(max_examples=examples(200))
def test_against_loops(batch: list[EntropyRollout], config: dict[str, Any], by_std: bool) -> None:
    found = advantage(batch, by_std, **config)
    expected = torch.zeros_like(found)
    for row, own in enumerate(reference_advantage(batch, by_std=by_std, **config)):
        for position, value in own.items():
            expected[row, position] = value
    assert torch.isfinite(found).all()
    # The reference's own rounding, 1e-16, is divided by 1e-6 where rewards are all but equal.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@given(BATCHES, SETTINGS, st.integers(0, 3), st.sampled_from([0.0, math.nan, math.inf, -1e30]))
@settings(max_examples=examples(75))
def test_padding_and_what_it_holds(
    batch: list[EntropyRollout], config: dict[str, Any], padding: int, junk: float
) -> None:
    expected = advantage(batch, **config)
    found = gtpo_advantage(**tensors(batch, padding, junk), config=GTPOConfig(**config))
    assert torch.equal(found[:, : expected.shape[1]], expected)
    assert not found[:, expected.shape[1] :].any()
    empty_row = EntropyRollout("padding", False, (), ())
    assert torch.equal(advantage([*batch, empty_row], **config)[:-1], expected)
    assert not advantage([*batch, empty_row], **config)[-1].any()


@given(BATCHES, SETTINGS, st.randoms(use_true_random=False))
@settings(max_examples=examples(75))
def test_order_of_rows_and_rest_of_the_batch(batch: list[EntropyRollout], config: dict[str, Any], random: Any) -> None:
    expected = advantage(batch, **config)
    order = random.sample(range(len(batch)), len(batch))
    torch.testing.assert_close(advantage([batch[row] for row in order], **config), expected[order], rtol=0, atol=1e-6)
    for group in {one.group for one in batch}:
        rows = [row for row, one in enumerate(batch) if one.group == group]
        alone = advantage([batch[row] for row in rows], **config)
        torch.testing.assert_close(alone, expected[rows][:, : alone.shape[1]], rtol=0, atol=1e-6)


@given(BATCHES)
@settings(max_examples=examples(75))
def test_apart_rewards_no_outcome_and_has_no_weights(batch: list[EntropyRollout]) -> None:
    found = advantage(batch)
    for group in {one.group for one in batch}:
        for verdict in (True, False):
            rows = [row for row, one in enumerate(batch) if (one.group, one.correct) == (group, verdict)]
            assert found[rows].sum().item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(advantage(batch, outcome_weight=0.0), found, rtol=0, atol=1e-6)
    # 1e-6 beside a std that is no smaller than about 0.1 / 48.
    torch.testing.assert_close(advantage(batch, entropy_weight=0.2), found, rtol=2e-3, atol=1e-6)


@given(st.sampled_from([0.0, 0.3, 2.0]), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3))
def test_equal_entropies_apart_leave_nothing(entropy: float, right: int, wrong: int, shorter: int) -> None:
    batch = [rollout(row < right, *[entropy] * (4 - shorter * (row % 2))) for row in range(right + wrong)]
    if batch:
        assert advantage(batch).abs().max() < 1e-8


def test_the_only_right_rollout_gets_exactly_nothing() -> None:
    """The division blows up no rounding error, so that a count of zero advantages includes these."""
    only = rollout(True, *(0.1 * position for position in range(1000)))
    batch = [only, rollout(False, 0.3), rollout(False, 0.3)]
    for weight in (0.1, 0.3, 0.7):
        assert not advantage(batch, entropy_weight=weight)[0].any()


def grpo(batch: list[EntropyRollout], scores: list[float]) -> torch.Tensor:
    mask = tensors(batch)["response_mask"]
    rewards = torch.zeros(mask.shape, dtype=torch.float64)
    rewards[:, 0] = torch.tensor(scores, dtype=torch.float64)
    index = np.array([one.group for one in batch], dtype=object)
    return compute_grpo_outcome_advantage(token_level_rewards=rewards, response_mask=mask, index=index)[0]


@given(
    st.lists(st.booleans(), min_size=2, max_size=8).filter(any),
    st.integers(1, 5),
    st.lists(st.integers(0, 32), min_size=40, max_size=40),
)
@settings(max_examples=examples(75))
def test_together_is_grpo_on_equal_lengths(verdicts: list[bool], length: int, counts: list[int]) -> None:
    """Without the entropy term on any entropies, and with it on equal ones; rewards are then +-1 and +-1.1."""
    rows = range(len(verdicts))
    any_entropies = [
        rollout(verdicts[row], *(count / 16 for count in counts[row * length : (row + 1) * length])) for row in rows
    ]
    found = advantage(any_entropies, normalization="together", entropy_weight=0.0)
    scores = [1.0 if verdict else -1.0 for verdict in verdicts]
    torch.testing.assert_close(found, grpo(any_entropies, scores), rtol=0, atol=1e-9)

    equal = [rollout(verdict, *[0.7] * length) for verdict in verdicts]
    found = advantage(equal, normalization="together")
    torch.testing.assert_close(found, grpo(equal, [1.1 * score for score in scores]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("normalization", ["apart", "together"])
@pytest.mark.parametrize("mode", ["off", "paper"])
def test_groups_of_one_verdict(normalization: str, mode: str) -> None:
    right = [rollout(True, 1.0, 2.0), rollout(True, 3.0, 1.0)]
    wrong = [rollout(False, 1.0, 2.0), rollout(False, 3.0, 1.0)]
    config = {"normalization": normalization, "all_wrong_groups": mode}
    assert advantage(right, **config).abs().max() > 0.5
    found = advantage(wrong, **config)
    assert found.abs().max() > 0.5 if mode == "paper" else not found.any()
    for verdict in (True, False):
        assert not advantage([rollout(verdict, 1.0, 2.0)], **config).any()


def test_direction() -> None:
    """High entropy is worth more where the rollout is correct, low entropy costs more where it is incorrect."""
    found = advantage([rollout(True, 0.1), rollout(True, 2.0), rollout(False, 0.1), rollout(False, 2.0)])
    assert found[0] < found[1]
    assert found[2] < found[3]


def test_zero_entropies() -> None:
    """A certain token of an incorrect rollout takes all of its position's penalty; correct ones share equally."""
    batch = tensors([rollout(False, 0.0), rollout(False, 1.0), rollout(True, 0.0), rollout(True, 0.0)])
    rewards = entropy_rewards(
        batch["entropy"], batch["response_mask"].bool(), batch["correct"], batch["groups"], GTPOConfig()
    )
    assert rewards.flatten().tolist() == pytest.approx([-1.2, -1.0, 1.1, 1.1], abs=1e-6)


def test_rounding_below_zero_counts_as_zero() -> None:
    below = [rollout(False, -1e-8), rollout(False, 1.0), rollout(True, -1e-8), rollout(True, 1.0)]
    zero = [rollout(False, 0.0), rollout(False, 1.0), rollout(True, 0.0), rollout(True, 1.0)]
    assert torch.equal(advantage(below), advantage(zero))


def test_entropy_is_a_constant() -> None:
    batch = tensors(MIXED)
    batch["entropy"].requires_grad_()
    assert not gtpo_advantage(**batch, config=GTPOConfig()).requires_grad


def test_bad_input_is_refused() -> None:
    batch = tensors(MIXED)
    batch["entropy"][1, 0] = math.nan
    with pytest.raises(NonFiniteSignalError, match="row 1, position 0"):
        gtpo_advantage(**batch, config=GTPOConfig())
    with pytest.raises(SignalShapeError, match="entropy"):
        gtpo_advantage(**{**tensors(MIXED), "entropy": torch.zeros(4, 3)}, config=GTPOConfig())
    with pytest.raises(SignalShapeError, match="correct"):
        gtpo_advantage(**{**tensors(MIXED), "correct": torch.ones(3, dtype=torch.bool)}, config=GTPOConfig())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"entropy_wieght": 0.1}, ["'entropy_wieght' (under algorithm.gtpo)", "'entropy_weight'"]),
        ({"entropy_weight": -0.1}, ["algorithm.gtpo.entropy_weight", "-0.1", "[0, inf)"]),
        ({"outcome_weight": math.nan}, ["algorithm.gtpo.outcome_weight", "nan"]),
        ({"outcome_weight": True}, ["algorithm.gtpo.outcome_weight", "True"]),
        ({"normalization": "batch"}, ["algorithm.gtpo.normalization", "batch", "apart", "together"]),
        ({"all_wrong_groups": False}, ["algorithm.gtpo.all_wrong_groups", "False", "off", "paper"]),
    ],
)
def test_bad_settings_name_key_value_and_range(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.gtpo") as error:
        GTPOConfig.from_mapping(settings)
    assert [word for word in words if word not in str(error.value)] == []


def test_preset_repeats_the_defaults() -> None:
    text = (Path(verl_ispo.__file__).parent / "config/method/gtpo.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    preset = yaml.safe_load(text)
    assert preset == {"algorithm": {"adv_estimator": "gtpo", "gtpo": dataclasses.asdict(GTPOConfig())}}


def estimator_inputs(batch: list[EntropyRollout]) -> tuple[KnownOfBatch, dict[str, Any]]:
    given = tensors(batch)
    mask = given["response_mask"]
    signals = KnownOfBatch(
        correct=given["correct"],
        log_prob=torch.zeros(mask.shape),
        entropy=given["entropy"],
        prompt_log_prob=torch.zeros(len(batch), 1),
        prompt_mask=torch.ones(len(batch), 1, dtype=torch.bool),
    )
    index = np.array([one.group for one in batch], dtype=object)
    return signals, {"token_level_rewards": torch.zeros(mask.shape), "response_mask": mask, "index": index}


def test_estimator() -> None:
    """Found by name; settings from verl's algorithm section, whose other keys it passes along are of no concern."""
    estimator = get_adv_estimator_fn("gtpo")
    assert estimator.__module__ == "verl_ispo.trainer.method_adapter"
    signals, arguments = estimator_inputs(MIXED)
    chosen = {"normalization": "together", "entropy_weight": 0.5}
    with handed_over(signals):
        plain, returns = estimator(**arguments, non_tensor_batch={})
        section = OmegaConf.create({"gtpo": chosen, "norm_adv_by_std_in_grpo": False})
        configured, _ = estimator(**arguments, config=section)
        missing_section, _ = estimator(**arguments, config=OmegaConf.create({"norm_adv_by_std_in_grpo": True}))
        with pytest.raises(ValueError, match=r"'alpha' \(under algorithm\.gtpo\)"):
            estimator(**arguments, config=OmegaConf.create({"gtpo": {"alpha": 1}}))
    assert plain.dtype == torch.float32
    assert torch.equal(plain, returns)
    assert torch.equal(plain, advantage(MIXED).float())
    assert torch.equal(missing_section, plain)
    assert torch.equal(configured, advantage(MIXED, by_std=False, **chosen).float())


def test_estimator_without_signals_says_what_to_set() -> None:
    _, arguments = estimator_inputs(MIXED)
    with pytest.raises(MissingSignalsError, match="trainer_mode"):
        compute_gtpo_advantage(**arguments)
