"""CoDaPO: the weight by hand, the groups in which it is GRPO scaled, and which prompts are repeated.

Not exercised: the trainer that repeats them (tests/trainer/test_prompt_selection), and the effect on training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
import torch

from verl_ispo.methods.codapo import (
    METHOD,
    CoDaPOConfig,
    CoDaPOState,
    codapo_advantage,
    draw,
    group_weights,
    repeated_prompts,
    updated,
)
from verl_ispo.methods.method import MethodBatch, PromptCandidates
from verl_ispo.signals.checks import NonFiniteSignalError
from verl_ispo.signals.groups import RolloutGroups


def batch(labels: str, verdicts: str, probability: Sequence[float]) -> MethodBatch:
    """Rollouts of two tokens, the second as likely as the first; a dot is a padding row."""
    mask = torch.tensor([[int(label != ".")] * 2 for label in labels])
    groups = RolloutGroups.from_labels([label if label != "." else f"{row}" for row, label in enumerate(labels)])
    return MethodBatch(
        rewards=torch.zeros(mask.shape),
        response_mask=mask,
        groups=groups,
        correct=torch.tensor([verdict == "1" for verdict in verdicts]),
        log_prob=torch.tensor(probability).log().unsqueeze(-1).expand(-1, 2),
        grpo_advantage=torch.arange(1.0, len(labels) + 1).unsqueeze(-1) * mask,
        prompt_keys=["" if label == "." else label for label in labels],
        state=CoDaPOState(),
    )


def test_the_weight_by_hand() -> None:
    """d = 1/2: d_w = 1; the geometric mean of 1/2 and 1/8 is 1/4. d = 3/4: d_w = 3/4. d = 0: d_w = 0."""
    found = group_weights(batch("aabbbbc", "1010001", [0.5, 0.125, 0.5, 0.5, 0.5, 0.5, 0.5]), CoDaPOConfig())
    assert found.tolist() == pytest.approx([0.25 + 0.1, 0.375 + 0.1, 0.1])


def test_the_advantage_is_grpos_times_the_weight() -> None:
    found = codapo_advantage(batch("aa.", "100", [0.5, 0.125, 0.9]), CoDaPOConfig())
    torch.testing.assert_close(found, torch.tensor([[0.35] * 2, [0.7] * 2, [0.0] * 2]).double(), check_dtype=False)


@pytest.mark.parametrize("verdicts", ["111", "000"])
def test_a_single_outcome_leaves_the_offset(verdicts: str) -> None:
    assert group_weights(batch("aaa", verdicts, [0.5] * 3), CoDaPOConfig(weight_offset=0.3)).tolist() == [0.3]


def test_a_log_prob_that_is_no_number_is_named() -> None:
    with pytest.raises(NonFiniteSignalError, match="log_prob is nan at row 1"):
        group_weights(batch("aa", "10", [0.5, math.nan]), CoDaPOConfig())


@pytest.mark.parametrize(
    ("weights", "keep", "rows"),
    [
        ([0.1, 0.4, 0.2, 0.3], 4, [1, 1, 1, 1]),
        ([0.1, 0.8, 0.2, 0.3, 0.9, 0.4, 0.5, 0.6], 8, [1] * 4 + [4] * 4),
        ([0.1, 0.8, 0.2, 0.9, 0.3], 5, [1, 1, 1, 1, 3]),
        ([0.2] * 4, 4, [0, 0, 0, 0]),
        ([0.3], 1, [0]),
        ([0.1, 0.9], 8, [1] * 8),
    ],
)
def test_the_upper_quarter_is_repeated(weights: list[float], keep: int, rows: list[int]) -> None:
    assert repeated_prompts(weights, keep, CoDaPOConfig()) == rows


def test_equal_weights_of_any_size_are_all_at_the_quantile() -> None:
    for weight in (0.1, 0.7 / 3, 1.1):
        assert repeated_prompts([weight] * 16, 16, CoDaPOConfig(repeat_count=1)) == list(range(16))


def test_steps_with_new_and_with_repeated_prompts_take_turns() -> None:
    config, first = CoDaPOConfig(), batch("aabb.", "10000", [0.5] * 5)
    assert METHOD.prompt_choice.earlier(CoDaPOState()) == []
    after = updated(CoDaPOState(), first, config)
    assert after.weights == pytest.approx({"a": 0.6, "b": 0.1})
    assert METHOD.prompt_choice.earlier(after) == ["a", "b"]
    drawn = draw(PromptCandidates(["a", "b"], 2, 2, after), config)
    assert drawn.rows.tolist() == [0, 0]
    assert drawn.score.tolist() == pytest.approx([0.6, 0.1])
    assert updated(after, batch("aaaa", "1000", [0.5] * 4), config) == CoDaPOState()


def test_new_prompts_are_all_taken() -> None:
    drawn = draw(PromptCandidates(["a", "b", "c"], 3, 1, CoDaPOState()), CoDaPOConfig())
    assert drawn.rows.tolist() == [0, 1, 2]
    assert drawn.score is None


def test_without_repeats_every_step_has_new_prompts() -> None:
    config = CoDaPOConfig(repeat_count=0)
    assert updated(CoDaPOState(), batch("aa", "10", [0.5] * 2), config) == CoDaPOState()


def test_the_state_survives_json_in_its_order() -> None:
    state = updated(CoDaPOState(), batch("bbaa", "1000", [0.5] * 4), CoDaPOConfig())
    loaded = CoDaPOState(**json.loads(json.dumps(asdict(state))))
    assert loaded == state
    assert list(loaded.weights) == ["b", "a"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("weight_offset", bad) for bad in (-0.1, "1", None)],
        *[("percentile", bad) for bad in (-0.1, 1.1, None)],
        *[("repeat_count", bad) for bad in (-1, 0.5, True)],
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.codapo\.{key} .*{value!r}"):
        CoDaPOConfig.from_mapping({key: value})
