"""PREPO: which prompts a step trains on, and the weight of each rollout.

Checked: perplexity, window and weights against plain loops (float64, exact fractions) and by hand; the window at both
ends of training; selection by rank, stable and repeatable; what padding, masks, padding rows and the order of rows must
not change; the limits in which the estimator is bitwise GRPO; all-wrong and all-right groups, groups of one.

The weighted loss is in test_prepo_weighted_loss.py.

Not exercised: the trainer that scores the candidate prompts, and whether the paper means the batch or the group by
"mean over rollouts" (ours is the batch).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import (
    compute_grpo_outcome_advantage,
    get_adv_estimator_fn,
)

import verl_ispo
from tests.composed import composed
from tests.examples import examples
from tests.methods.references.prepo import weights
from verl_ispo.config import UnknownISPOKeyError
from verl_ispo.methods.prepo import (
    PREPOConfig,
    prompt_perplexity,
    relative_entropy_weight,
    scheduled_window,
    select_prompts,
)
from verl_ispo.signals.checks import NonFiniteSignalError, SignalShapeError
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over
from verl_ispo.trainer.method_adapter import MissingSignalsError

compute_prepo_advantage = get_adv_estimator_fn("prepo")

PRESET = Path(verl_ispo.__file__).parent / "config" / "method" / "prepo.yaml"
JUNK = [0.0, math.nan, math.inf, -math.inf, 1e30]

# Multiples of 1/16 are exact, so that equal values are frequent and sums do not depend on their order.
sixteenths = st.integers(0, 96).map(lambda count: count / 16)
# Values of one row, each of them masked or not.
masked_row = st.lists(st.tuples(sixteenths, st.booleans()), max_size=8)
masked_rows = st.lists(masked_row, min_size=1, max_size=8)


def padded(
    batch: Sequence[Sequence[tuple[float, bool]]], padding: int = 0, junk: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and mask, with ``junk`` wherever the mask is false."""
    width = max(len(row) for row in batch) + padding
    values, mask = torch.full((len(batch), width), junk), torch.zeros(len(batch), width, dtype=torch.bool)
    for number, row in enumerate(batch):
        for position, (value, kept) in enumerate(row):
            if kept:
                values[number, position], mask[number, position] = value, True
    return values, mask


def kept_values(row: Sequence[tuple[float, bool]]) -> list[float]:
    return [value for value, kept in row if kept]


# Prompts


@given(masked_rows, st.integers(0, 4), st.sampled_from(JUNK))
@settings(max_examples=examples(100))
def test_perplexity_is_the_references(batch: list[list[tuple[float, bool]]], padding: int, junk: float) -> None:
    surprisal, mask = padded(batch, padding, junk)
    found = prompt_perplexity(-surprisal, mask)
    for row, perplexity in zip(batch, found.tolist(), strict=True):
        values = kept_values(row)
        assert perplexity == pytest.approx(math.exp(statistics.fmean(values)) if values else 1.0, rel=1e-6)


def test_perplexity_by_hand() -> None:
    """Tokens of 1/2 and 1/8: 1 / sqrt(1/16) = 4. A prompt of one token has no log-prob, and perplexity 1."""
    log_prob = torch.tensor([[0.5, 0.125], [0.1, 0.1]]).log()
    assert prompt_perplexity(log_prob, torch.tensor([[1, 1], [0, 0]])).tolist() == pytest.approx([4.0, 1.0])


def test_perplexity_of_hopeless_prompts_is_finite_and_sorted() -> None:
    found = prompt_perplexity(torch.tensor([[-100.0], [-101.0], [-1e4], [0.0]]), torch.ones(4, 1))
    assert torch.isfinite(found).all()
    assert found.argsort().tolist() == [3, 0, 1, 2]


@given(st.integers(1, 60), st.data())
@settings(max_examples=examples(300))
def test_the_window_is_the_references(candidates: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, candidates))
    total = data.draw(st.integers(1, 1000))
    step = data.draw(st.integers(0, 2 * total))
    start = math.floor(min(Fraction(step, total), 1) * (candidates - keep))
    assert list(scheduled_window(candidates, keep, step / total)) == list(range(start, start + keep))


@pytest.mark.parametrize(
    ("progress", "window"),
    [
        (-0.5, range(0, 10)),
        (0.0, range(0, 10)),
        (0.0249, range(0, 10)),
        (0.025, range(1, 11)),
        (0.5, range(20, 30)),
        (0.999, range(39, 49)),
        (1.0, range(40, 50)),
        (7.0, range(40, 50)),
    ],
)
def test_ten_of_fifty_by_hand(progress: float, window: range) -> None:
    assert scheduled_window(50, 10, progress) == window


def test_a_product_that_rounds_down_keeps_its_place() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point."""
    assert scheduled_window(101, 1, 29 / 100) == range(29, 30)


def test_the_easiest_at_the_start_and_the_hardest_at_the_end() -> None:
    perplexity = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0])
    assert select_prompts(perplexity, 2, 0.0).tolist() == [1, 3]
    assert select_prompts(perplexity, 2, 0.5).tolist() == [3, 2]
    assert select_prompts(perplexity, 2, 1.0).tolist() == [4, 0]
    assert select_prompts(perplexity, 5, 0.3).tolist() == [1, 3, 2, 4, 0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.data(), st.floats(0, 1))
@settings(max_examples=examples(100))
def test_selection_is_by_rank_with_ties_by_position(perplexity: list[int], data: st.DataObject, rho: float) -> None:
    keep = data.draw(st.integers(1, len(perplexity)))
    ranked = [position for _, position in sorted((value, position) for position, value in enumerate(perplexity))]
    start = scheduled_window(len(perplexity), keep, rho).start
    values = torch.tensor(perplexity, dtype=torch.float64)
    for _ in range(2):
        assert select_prompts(values, keep, rho).tolist() == ranked[start : start + keep]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20, unique=True), st.data(), st.floats(0, 1))
@settings(max_examples=examples(50))
def test_selection_does_not_depend_on_the_order_of_candidates(
    perplexity: list[int], data: st.DataObject, rho: float
) -> None:
    keep = data.draw(st.integers(1, len(perplexity)))
    shuffled = data.draw(st.permutations(perplexity))
    one, other = torch.tensor(perplexity, dtype=torch.float64), torch.tensor(shuffled, dtype=torch.float64)
    assert torch.equal(one[select_prompts(one, keep, rho)], other[select_prompts(other, keep, rho)])


@pytest.mark.parametrize(("candidates", "keep"), [(5, 0), (5, 6), (5, -1), (0, 0), (0, 1)])
def test_a_window_that_does_not_fit_is_refused(candidates: int, keep: int) -> None:
    with pytest.raises(ValueError, match=rf"keep {keep} of {candidates} .*\[1, {candidates}\]"):
        scheduled_window(candidates, keep, 0.5)


@pytest.mark.parametrize("progress", [math.nan, math.inf, -math.inf])
def test_a_progress_that_is_no_number_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match=f"step / total steps, got {progress}"):
        scheduled_window(5, 2, progress)


def test_prompts_that_cannot_be_ranked_are_named() -> None:
    with pytest.raises(NonFiniteSignalError, match=r"^perplexity is nan at row 1"):
        select_prompts(torch.tensor([1.0, math.nan]), 1, 0.0)
    with pytest.raises(NonFiniteSignalError, match=r"^prompt_log_prob is -inf at row 1, position 0"):
        prompt_perplexity(torch.tensor([[-1.0], [-math.inf]]), torch.ones(2, 1))
    with pytest.raises(SignalShapeError, match="prompt_log_prob"):
        prompt_perplexity(torch.zeros(2, 3), torch.ones(2, 2))


# Weights


def reference_weights(batch: Sequence[Sequence[tuple[float, bool]]]) -> list[float]:
    return weights([kept_values(row) for row in batch])


@given(masked_rows, st.integers(0, 4), st.sampled_from(JUNK))
@settings(max_examples=examples(200))
def test_weights_are_the_references(batch: list[list[tuple[float, bool]]], padding: int, junk: float) -> None:
    found = relative_entropy_weight(*padded(batch, padding, junk))
    assert found.tolist() == pytest.approx(reference_weights(batch), rel=1e-6, abs=1e-6)


def test_weights_by_hand() -> None:
    """Mean entropies 1, 2, 3 (a token inside is masked), and an empty row: mean 2."""
    entropy = torch.tensor([[0.5, 1.5, 9.0], [2.0, 9.0, 2.0], [3.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 0]])
    assert relative_entropy_weight(entropy, mask).tolist() == [0.5, 1.0, 1.5, 1.0]


def test_without_any_entropy_every_weight_is_1() -> None:
    assert relative_entropy_weight(torch.zeros(3, 2), torch.tensor([[1, 1], [1, 0], [0, 0]])).tolist() == [1.0] * 3
    assert relative_entropy_weight(torch.zeros(2, 0), torch.zeros(2, 0)).tolist() == [1.0] * 2


def test_rounding_below_0_turns_no_weight_around() -> None:
    found = relative_entropy_weight(torch.tensor([[-1e-7], [-1e-7], [1.0]]), torch.ones(3, 1))
    assert found.tolist() == [0.0, 0.0, 3.0]
    assert relative_entropy_weight(torch.tensor([[-1e-7], [0.0]]), torch.ones(2, 1)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1e30])
def test_weights_of_any_scale_are_finite(scale: float) -> None:
    """1e-45 is the smallest number in float32."""
    found = relative_entropy_weight(torch.tensor([[scale], [0.0]]), torch.ones(2, 1))
    assert found.tolist() == [2.0, 0.0]


def test_weights_are_detached() -> None:
    entropy = torch.rand(2, 3, requires_grad=True)
    assert not relative_entropy_weight(entropy, torch.ones(2, 3)).requires_grad


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_entropy_that_is_no_number_is_named(bad: float) -> None:
    with pytest.raises(NonFiniteSignalError, match=f"^entropy is {bad} at row 1, position 0"):
        relative_entropy_weight(torch.tensor([[1.0], [bad]]), torch.ones(2, 1))


# The estimator


@st.composite
def rollout_batches(draw: st.DrawFn) -> tuple[dict[str, Any], torch.Tensor]:
    """What verl hands to the estimator, and the entropies."""
    entropy, mask = padded(draw(masked_rows), padding=1)
    scores = draw(st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5]), min_size=len(mask), max_size=len(mask)))
    labels = draw(st.lists(st.sampled_from("abc"), min_size=len(mask), max_size=len(mask)))
    rewards = torch.zeros_like(entropy)
    rewards[:, 0] = torch.tensor(scores)
    return {
        "token_level_rewards": rewards,
        "response_mask": mask.long(),
        "index": np.array(labels, dtype=object),
    }, entropy


def signals_of(entropy: torch.Tensor) -> KnownOfBatch:
    """Only the entropy is PREPO's; what it must not touch is NaN."""
    nothing = torch.full_like(entropy, math.nan)
    return KnownOfBatch(
        correct=torch.zeros(len(entropy), dtype=torch.bool),
        log_prob=nothing,
        entropy=entropy,
        prompt_log_prob=nothing,
        prompt_mask=torch.ones_like(entropy).bool(),
    )


def advantages_of(batch: dict[str, Any], entropy: torch.Tensor, config: DictConfig | None = None) -> torch.Tensor:
    with handed_over(signals_of(entropy)):
        advantages, returns = compute_prepo_advantage(**batch, config=config)
    assert torch.equal(advantages, returns)
    assert torch.isfinite(advantages).all()
    return advantages


def test_verl_finds_it_by_name() -> None:
    assert get_adv_estimator_fn("prepo").__module__ == "verl_ispo.trainer.method_adapter"


@given(rollout_batches(), st.booleans())
@settings(max_examples=examples(100))
def test_the_advantage_is_grpos_times_the_weight(
    given_batch: tuple[dict[str, Any], torch.Tensor], normalize_by_std: bool
) -> None:
    batch, entropy = given_batch
    found = advantages_of(batch, entropy, OmegaConf.create({"norm_adv_by_std_in_grpo": normalize_by_std}))
    grpo, _ = compute_grpo_outcome_advantage(**batch, norm_adv_by_std_in_grpo=normalize_by_std)
    mask = batch["response_mask"]
    expected_weights = reference_weights(
        [[(value, bool(kept)) for value, kept in zip(*row, strict=True)] for row in zip(entropy, mask, strict=True)]
    )
    for number, weight in enumerate(expected_weights):
        expected = (grpo[number].double() * float(weight)).tolist()
        assert found[number].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert not found[mask == 0].any()


@given(rollout_batches(), st.sampled_from([0.0, 0.1, 0.7, 3.0]))
@settings(max_examples=examples(50))
def test_equal_mean_entropies_are_grpo_to_the_bit(
    given_batch: tuple[dict[str, Any], torch.Tensor], entropy: float
) -> None:
    batch, _ = given_batch
    equal = torch.full_like(batch["token_level_rewards"], entropy)
    assert torch.equal(advantages_of(batch, equal), compute_grpo_outcome_advantage(**batch)[0])


@given(rollout_batches(), st.integers(1, 3), st.floats(0, 1e6, width=32))
@settings(max_examples=examples(50))
def test_padding_rows_are_zero_and_change_nothing(
    given_batch: tuple[dict[str, Any], torch.Tensor], count: int, hidden: float
) -> None:
    batch, entropy = given_batch
    rows = len(entropy)
    longer = {
        name: torch.cat([batch[name], torch.zeros_like(batch[name][:1]).expand(count, -1)])
        for name in batch
        if name != "index"
    }
    longer["index"] = np.array([*batch["index"], *(f"padding-{number}" for number in range(count))], dtype=object)
    found = advantages_of(longer, torch.cat([entropy, torch.full((count, entropy.shape[1]), hidden)]))
    assert torch.equal(found[:rows], advantages_of(batch, entropy))
    assert not found[rows:].any()


@given(rollout_batches(), st.randoms(use_true_random=False))
@settings(max_examples=examples(50))
def test_order_of_rows(given_batch: tuple[dict[str, Any], torch.Tensor], random: Any) -> None:
    batch, entropy = given_batch
    order = list(range(len(entropy)))
    random.shuffle(order)
    shuffled = advantages_of({name: values[order] for name, values in batch.items()}, entropy[order])
    torch.testing.assert_close(shuffled, advantages_of(batch, entropy)[order], rtol=1e-5, atol=1e-5)


def test_groups_of_each_kind() -> None:
    """Mean entropies 1 and 3 in every group, so weights 1/2 and 3/2; a group of one keeps its score, as in verl."""
    rewards = torch.tensor([[1.0], [0.0], [1.0], [1.0], [0.0], [0.0], [1.0], [0.0]])
    batch = {
        "token_level_rewards": rewards,
        "response_mask": torch.ones(8, 1),
        "index": np.array(["mixed"] * 2 + ["right"] * 2 + ["wrong"] * 2 + ["one right", "one wrong"], dtype=object),
    }
    found = advantages_of(batch, torch.tensor([[1.0], [3.0]] * 4)).flatten().tolist()
    assert found == pytest.approx([0.5 * 0.7071, -1.5 * 0.7071, 0, 0, 0, 0, 0.5, 0], abs=1e-4)


def test_without_signals_it_names_the_modes() -> None:
    batch = {"token_level_rewards": torch.ones(1, 1), "response_mask": torch.ones(1, 1), "index": np.array(["q"])}
    with pytest.raises(MissingSignalsError, match=r"adv_estimator=prepo.*ispo_sync"):
        compute_prepo_advantage(**batch)
    with pytest.raises(SignalShapeError, match="entropy"):
        advantages_of(batch, torch.ones(2, 1))
    with pytest.raises(UnknownISPOKeyError, match=r"'keep' \(under algorithm\.prepo\).*keep_fraction"):
        advantages_of(batch, torch.ones(1, 1), OmegaConf.create({"prepo": {"keep": 0.2}}))


# Settings


@pytest.mark.parametrize("value", [0.0, -0.2, 1.01, 20, math.nan, math.inf, "0.2", None, True])
def test_a_value_out_of_range_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.prepo\.keep_fraction must be a number in \(0, 1\]") as caught:
        PREPOConfig.from_mapping({"keep_fraction": value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [1, 1.0, 0.2, 1e-3])
def test_a_value_in_range_is_kept(value: float) -> None:
    assert PREPOConfig.from_mapping({"keep_fraction": value}).keep_fraction == value


def test_a_missing_section_means_the_defaults() -> None:
    for nothing in (None, {}, OmegaConf.create({})):
        assert PREPOConfig.from_mapping(nothing) == PREPOConfig(keep_fraction=0.2)


def test_the_preset_says_the_defaults_and_explains_each_key() -> None:
    lines = PRESET.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    written = yaml.safe_load("\n".join(lines))
    assert written == {"algorithm": {"adv_estimator": "prepo", "prepo": dataclasses.asdict(PREPOConfig())}}
    for number, line in enumerate(lines):
        if ": " in line and not line.lstrip().startswith("#"):
            assert lines[number - 1].lstrip().startswith("# "), line


@pytest.mark.parametrize("name", ["ispo_trainer", "ispo_megatron_trainer"])
def test_the_preset_composes_onto_the_shared_base(name: str) -> None:
    config = composed("method=prepo", "algorithm.prepo.keep_fraction=0.5", name=name)
    assert config.algorithm.adv_estimator == "prepo"
    assert PREPOConfig.from_mapping(config.algorithm.prepo) == PREPOConfig(keep_fraction=0.5)
    actor_config = config.actor_rollout_ref.actor
    assert (actor_config.clip_ratio_low, actor_config.clip_ratio_high) == (0.2, 0.28)
    assert actor_config.loss_agg_mode == "token-mean"
