"""What is computed in few passes is bitwise what the plain formulas give.

What goes wrong in general: a sum runs over other elements or in another order, a row depends on the rows that it is
worked on together with, or a shortcut that tells most groups apart passes over one.

Derivation: the plain formulas, element by element, on the same tensors.

Not exercised: time and memory (`scripts/bench_driver.py`).
"""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.signals import composite, diagnostics
from verl_ispo.signals.composite import compute_ispo_reward
from verl_ispo.signals.critical_tokens import entropy_filter
from verl_ispo.signals.groups import RolloutGroups


def made_inputs(rows: int, length: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    lengths = (length * uniform(rows)).long()
    return {
        "score": (uniform(rows) < 0.5).float(),
        "correct": uniform(rows) < 0.5,
        "log_prob": -2 * uniform(rows, length),
        "ref_log_prob": -2 * uniform(rows, length),
        "entropy": (8 * uniform(rows, length)).round() / 4,  # many ties
        "response_mask": torch.arange(length) < lengths.unsqueeze(-1),
        "answer_log_prob": -uniform(rows, 3),
        "ablated_answer_log_prob": -uniform(rows, 3),
        "answer_mask": uniform(rows, 3) < 0.7,
    }


@pytest.mark.parametrize("selection", ["intersection", "union", "entropy", "drift"])
@pytest.mark.parametrize(("rows", "length"), [(1, 50), (2, 700), (3, 700), (5, 33), (17, 700), (64, 1100)])
def test_a_row_does_not_depend_on_its_block(
    rows: int, length: int, selection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, config = made_inputs(rows, length, rows), ISPOConfig(critical_selection=selection)
    rewards = []
    for elements in (1, 3 * length, 10**9):
        monkeypatch.setattr(composite, "_BLOCK_ELEMENTS", elements)
        rewards.append(compute_ispo_reward(**inputs, config=config))
    for other in rewards[:2]:
        for field in fields(other):
            left, right = getattr(other, field.name), getattr(rewards[2], field.name)
            if isinstance(left, torch.Tensor):
                assert torch.equal(left, right), field.name


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=6), st.integers(0, 6))
@settings(max_examples=examples(200))
def test_of_equal_entropies_the_earliest_are_taken(rows: list[list[int]], length: int) -> None:
    entropy = torch.tensor(rows).float()
    mask = torch.arange(6).expand_as(entropy) < length
    mask[0, ::2] = False
    chosen = entropy_filter(entropy, mask, 0.5)
    for row in range(len(rows)):
        candidates = [position for position in range(6) if mask[row, position]]
        count = -(-len(candidates) // 2)
        first = sorted(candidates, key=lambda position: (-rows[row][position], position))[:count]
        assert chosen[row].nonzero().squeeze(-1).tolist() == sorted(first)


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 1), max_size=5)), min_size=1, max_size=8))
@settings(max_examples=examples(200))
def test_groups_of_the_same_tokens(rows: list[tuple[int, list[int]]]) -> None:
    """Also where rollouts differ late, or only in length."""
    width = 20
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (_, tokens) in enumerate(rows):
        begin = width - 5
        ids[row, begin : begin + len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        mask[row, : begin + len(tokens)] = True
    groups = RolloutGroups.from_labels([group for group, _ in rows])
    batch = SimpleNamespace(groups=groups, response_ids=ids, response_mask=mask)
    expected = [len({str(tokens) for group, tokens in rows if group == one}) == 1 for one in dict(rows)]
    assert diagnostics._same_tokens(batch).tolist() == expected


def _plain_mean(values: torch.Tensor) -> float | None:
    return float(values.double().mean()) if values.numel() else None


@pytest.mark.parametrize("seed", range(5))
def test_means_over_chosen_tokens(seed: int) -> None:
    inputs, config = made_inputs(24, 300, seed), ISPOConfig()
    reward = compute_ispo_reward(**inputs, config=config)
    correct, entropy, mask = inputs["correct"].unsqueeze(-1), inputs["entropy"], inputs["response_mask"]
    batch = SimpleNamespace(reward=reward, entropy=entropy, response_mask=mask, correct=inputs["correct"])
    found = diagnostics._critical_token_metrics(batch, config, True)
    assert found == {
        "ispo/critical_fraction/entropy": _plain_mean(reward.entropy_mask[mask]),
        "ispo/critical_fraction/drift": _plain_mean(reward.drift_mask[mask]),
        "ispo/critical_fraction/both": _plain_mean((reward.entropy_mask & reward.drift_mask)[mask]),
        "ispo/critical_entropy/correct": _plain_mean(entropy[reward.critical_mask & correct]),
        "ispo/critical_entropy/wrong": _plain_mean(entropy[reward.critical_mask & ~correct]),
        "ispo/entropy_filter_entropy/correct": _plain_mean(entropy[reward.entropy_mask & correct]),
        "ispo/entropy_filter_entropy/wrong": _plain_mean(entropy[reward.entropy_mask & ~correct]),
        "ispo/hinge_active_rate": _plain_mean(entropy[reward.critical_mask & ~correct] < config.entropy_floor),
    }
    without = diagnostics._critical_token_metrics(batch, config, False)
    assert without == {
        name: found[name] for name in found if "entropy_filter" in name or name.endswith("fraction/entropy")
    }
