"""Every method of the registry against its float64 loop reference, on the same twenty batches and ten micro-batches.

- The advantage, and the loss of a method that brings one, are the reference's, under the settings of each preset. A
  method that keeps state is stepped through the batches in turn.
- The reference's numbers are those of the golden file, so that an edit of both sides shows.
- Neither padding, nor what stands behind a mask, nor the order of rows, nor the split of a loss into micro-batches
  changes a number, and all numbers are finite.
- Autograd's gradient of the loss is the slope of the reference's sum by finite differences. Every micro-batch has one,
  be it 0, since verl calls backward on each.

Parametrized by the registry: a method without a reference or a golden file fails here. Not exercised: verl's own
estimators and losses, and ISPO, whose references are in tests/signals; hand-computed cases, which each method's own
test file holds.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from tests.methods.golden_references import GOLDEN, golden_sample
from tests.methods.preset_settings import PresetSettings, presets_with_reference, reference_of
from tests.methods.twenty_batches import (
    LOSS_RECIPES,
    RECIPES,
    in_order,
    method_batches,
    updates,
    with_garbage,
    with_log_ratio,
    with_padding,
)
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.methods.registry import methods

WITHOUT_REFERENCE = {"ispo"}
"""Its rule is the composite reward's, which tests/signals holds against loops."""
ATOL = RTOL = 2e-5
"""For float64 references of rules that read, and in part compute, float32."""

PRESETS = presets_with_reference()
LOSSES = {name: preset for name, preset in PRESETS.items() if preset.method.token_loss is not None}


@cache
def batches(normalize_by_std: bool) -> dict[str, MethodBatch]:
    return method_batches(normalize_by_std)


def given_batches(preset: PresetSettings) -> Iterator[tuple[str, MethodBatch]]:
    for title, batch in batches(preset.normalize_by_std).items():
        yield title, preset.given(batch)


def micro_batches(preset: PresetSettings, dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, LossBatch]]:
    for title, update in updates(dtype).items():
        yield title, update.of(preset.method, preset.settings)


def advantage_of(preset: PresetSettings, batch: MethodBatch) -> torch.Tensor:
    """As the trainer gets it, `(batch, response_length)` float64."""
    found = preset.method.advantage(preset.declared(batch), preset.settings)
    if found.dim() == 1:
        found = found.unsqueeze(-1) * batch.response_mask
    assert found.shape == batch.response_mask.shape
    assert not found.requires_grad
    return found.double()


def loss_of(preset: PresetSettings, batch: LossBatch) -> torch.Tensor:
    found = preset.method.token_loss(batch, preset.settings)
    assert found.loss.shape == found.clipped.shape == batch.response_mask.shape
    return found.loss


def assert_equal(found: torch.Tensor, expected: torch.Tensor, title: str, rtol: float, atol: float) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, msg=lambda text: f"{title}: {text}")


def as_tensor(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_every_method_has_a_reference() -> None:
    without = [name for name in methods() if reference_of(name) is None]
    assert set(without) <= WITHOUT_REFERENCE, "write tests/methods/references/NAME.py"
    for name, method in methods().items():
        if name not in WITHOUT_REFERENCE:
            assert hasattr(reference_of(name), "token_loss") == (method.token_loss is not None), name
            assert hasattr(reference_of(name), "keeps") == (method.keeps is not None), name


def test_the_batches_are_what_their_names_say() -> None:
    assert (len(RECIPES), len(LOSS_RECIPES)) == (20, 10)
    found = batches(True)
    seen = {"mixed": 0, "all wrong": 0, "all right": 0}
    for name, batch in found.items():
        assert torch.isfinite(batch.log_prob).all(), name
        rows = batch.response_mask.any(dim=-1)
        wrong, right = batch.groups.all_wrong(batch.correct), batch.groups.all_right(batch.correct)
        real = batch.groups.reduce(rows.float(), "amax") > 0
        seen["mixed"] += int((real & ~wrong & ~right).sum())
        seen["all wrong"] += int((real & wrong).sum())
        seen["all right"] += int((real & right).sum())
    assert min(seen.values()) >= 9
    assert not found["all incorrect"].correct.any()
    assert found["all correct"].correct.all()
    assert found["long"].response_mask.sum(dim=-1).max() >= 190
    assert found["short"].response_mask.shape[1] == 1
    assert (found["rows without tokens"].response_mask.sum(dim=-1) == 0).sum() == 3
    assert {int(size) for batch in found.values() for size in batch.groups.size} >= {1, 2, 3, 4, 5, 8, 16}


@pytest.mark.parametrize("normalize_by_std", [True, False])
def test_the_batches_hold_verls_own_grpo(normalize_by_std: bool) -> None:
    for batch in batches(normalize_by_std).values():
        expected, _ = compute_grpo_outcome_advantage(
            token_level_rewards=batch.rewards,
            response_mask=batch.response_mask,
            index=np.array(batch.groups.ids.tolist()),
            norm_adv_by_std_in_grpo=normalize_by_std,
        )
        torch.testing.assert_close(batch.grpo_advantage, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_the_advantage_is_the_references(name: str) -> None:
    preset = PRESETS[name]
    state = None
    for title, batch in given_batches(preset):
        batch = batch if state is None else replace(batch, state=state)
        found, expected = advantage_of(preset, batch), as_tensor(preset.reference.advantage(batch, preset.settings))
        assert torch.isfinite(found).all(), title
        assert not expected[batch.response_mask == 0].any(), f"{title}: the reference is 0 where the mask is"
        assert_equal(found, expected, title, RTOL, ATOL)
        if preset.method.state is not None:
            state = preset.method.state.update(batch.state, preset.declared(batch), preset.settings)


@pytest.mark.parametrize("name", PRESETS)
def test_the_reference_is_the_golden_file(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    assert path.exists(), f"write it with python -m tests.methods.write_golden {name}"
    expected, found = json.loads(path.read_text(encoding="utf-8")), golden_sample(PRESETS[name])
    assert found.keys() == expected.keys()
    for part in expected:
        assert found[part].keys() == expected[part].keys()
        for title, numbers in expected[part].items():
            assert len(found[part][title]) == len(numbers)
            for ours, its in zip(found[part][title], numbers, strict=True):
                # one number stands for three equal ones
                ours, its = (3 * row if len(row) == 1 else row for row in (ours, its))
                assert ours == pytest.approx(its, rel=2e-5, abs=1e-6), (part, title)


@pytest.mark.parametrize("name", PRESETS)
def test_neither_padding_nor_what_a_mask_hides_changes_an_advantage(name: str) -> None:
    preset = PRESETS[name]
    for title, batch in given_batches(preset):
        expected, columns = advantage_of(preset, batch), batch.response_mask.shape[1]
        for garbage in (1e4, -1e4):
            found = advantage_of(preset, with_padding(with_garbage(batch, garbage), 3))
            assert_equal(found[:, :columns], expected, title, 1e-6, 1e-6)
            assert not found[:, columns:].any(), title
            assert not found[:, :columns][batch.response_mask == 0].any(), title


@pytest.mark.parametrize("name", [name for name in PRESETS if not PRESETS[name].says("ORDER_IS_PART_OF_THE_RULE")])
def test_the_order_of_rows_changes_no_advantage(name: str) -> None:
    preset = PRESETS[name]
    for number, (title, batch) in enumerate(given_batches(preset)):
        order = torch.randperm(len(batch.correct), generator=torch.Generator().manual_seed(number)).tolist()
        found = advantage_of(preset, in_order(batch, order))
        assert_equal(found, advantage_of(preset, batch)[order], title, 1e-5, 1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_rows_without_tokens_change_no_other_row(name: str) -> None:
    preset = PRESETS[name]
    for title, batch in given_batches(preset):
        written = batch.response_mask.any(dim=-1).nonzero().flatten().tolist()
        if len(written) < len(batch.correct):
            found = advantage_of(preset, in_order(batch, written))
            assert_equal(found, advantage_of(preset, batch)[written], title, 1e-6, 1e-6)


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].method.keeps is not None])
def test_what_stays_in_the_loss_is_the_references(name: str) -> None:
    preset = PRESETS[name]
    for title, batch in given_batches(preset):
        mask = batch.response_mask.bool()
        kept = preset.method.keeps(preset.declared(batch), preset.settings)
        kept = kept.unsqueeze(-1).expand(mask.shape) if kept.dim() == 1 else kept
        expected = torch.tensor(preset.reference.keeps(batch, preset.settings))
        assert torch.equal(kept & mask, expected & mask), title


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_references(name: str) -> None:
    preset = LOSSES[name]
    for title, batch in micro_batches(preset):
        found, mask = loss_of(preset, batch), batch.response_mask
        assert torch.isfinite(found).all(), title
        expected = as_tensor(preset.reference.token_loss(batch, preset.settings))
        assert_equal(found.double()[mask], expected[mask], title, 1e-4, ATOL)


@pytest.mark.parametrize("name", [name for name in LOSSES if not LOSSES[name].says("MICRO_BATCH_IS_PART_OF_THE_RULE")])
def test_micro_batches_change_no_loss(name: str) -> None:
    """Of one row each; of one prompt each for a loss that asks for whole groups."""
    preset = LOSSES[name]
    for title, batch in micro_batches(preset):
        mask = batch.response_mask
        labels = batch.groups.ids.tolist() if preset.method.whole_groups else list(range(len(mask)))
        whole, parts = loss_of(preset, batch), torch.zeros(mask.shape)
        for label in set(labels):
            rows = [row for row, its in enumerate(labels) if its == label]
            parts[rows] = loss_of(preset, in_order(batch, rows))
        assert_equal(parts[mask], whole[mask], title, 1e-6, 1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("garbage", [1e4, -1e4])
def test_what_a_mask_hides_changes_neither_loss_nor_gradient(name: str, garbage: float) -> None:
    preset = LOSSES[name]
    for title, batch in micro_batches(preset, torch.float64):
        mask = batch.response_mask
        hidden = replace(
            batch,
            advantages=torch.where(mask, batch.advantages, garbage),
            old_log_prob=torch.where(mask, batch.old_log_prob, -abs(garbage)),
            entropy=None if batch.entropy is None else torch.where(mask, batch.entropy, abs(garbage)),
        )
        loss, gradient = loss_and_gradient(preset, batch, batch.unclamped_log_ratio)
        filled = torch.where(mask, batch.unclamped_log_ratio, garbage)
        other_loss, other_gradient = loss_and_gradient(preset, hidden, filled)
        assert_equal(other_loss, loss, title, 1e-9, 1e-9)
        assert_equal(other_gradient, gradient, title, 1e-9, 1e-9)
        assert torch.isfinite(gradient).all(), title
        assert not gradient[~mask].any(), title


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_makes_its_tensors_where_its_inputs_are(name: str) -> None:
    """On a GPU a tensor of the default device stops the update. Here that device is one that holds no numbers."""
    preset = LOSSES[name]
    for title, batch in micro_batches(preset):
        expected = loss_of(preset, batch)
        with torch.device("meta"):
            found = loss_of(preset, batch)
        assert torch.equal(found, expected), title


def loss_and_gradient(
    preset: PresetSettings, batch: LossBatch, log_ratio: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss where the mask is 1, and the gradient of its sum at every log-prob."""
    log_ratio = log_ratio.clone().requires_grad_()
    # a product with the mask, as in verl's aggregation
    loss = loss_of(preset, with_log_ratio(batch, log_ratio)) * batch.response_mask
    (gradient,) = torch.autograd.grad(loss.sum(), log_ratio)
    return loss.detach()[batch.response_mask], gradient


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_slope_of_the_reference(name: str) -> None:
    preset, step = LOSSES[name], 1e-6
    rule = preset.reference.token_loss
    takes_point = "point" in inspect.signature(rule).parameters

    def total(batch: LossBatch, log_ratio: torch.Tensor) -> float:
        rows = rule(with_log_ratio(batch, log_ratio), preset.settings, *([batch] if takes_point else []))
        mask = batch.response_mask.tolist()
        return math.fsum(value for row, kept in zip(rows, mask, strict=True) for value in np.array(row)[kept])

    smooth = 0
    for title, batch in micro_batches(preset, torch.float64):
        if title == "beyond verl's clamp":
            continue  # exp(20) leaves no digit to a difference
        at = batch.unclamped_log_ratio
        _, gradient = loss_and_gradient(preset, batch, at)
        here = total(batch, at)
        for row, position in batch.response_mask.nonzero().tolist():
            moved = [at.clone(), at.clone()]
            moved[0][row, position] += step
            moved[1][row, position] -= step
            up, down = (total(batch, one) - here for one in moved)
            # a kink has two slopes, and the gradient lies between them
            low, high = sorted((up / step, -down / step))
            room = 1e-4 * max(1.0, abs(low), abs(high))
            assert low - room <= gradient[row, position].item() <= high + room, (title, row, position)
            smooth += high - low < room
    assert smooth > 150, "most places are no kinks"
