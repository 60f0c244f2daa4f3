r"""SPAE: the step potential, what solved steps take from the outcome, what rising potential adds, and the whitening.

Not exercised: the forward that scores the ground truth (tests/trainer/test_prefix_forward.py); the trainer around it,
which is that of GRPO-VPS (tests/training/test_methods.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.references import spae as reference
from verl_ispo.methods.method import CutRequest, MethodBatch, PrefixScores
from verl_ispo.methods.spae import METHOD, SPAEConfig, difference_shaping, saturation_factor, step_potential, whitened
from verl_ispo.signals.groups import RolloutGroups

Probe = tuple[float, float]


def scores_of(probes: list[list[Probe]]) -> PrefixScores:
    """Acc and Conf behind the cuts 0, 2, 4, ... of each rollout."""
    width = max(map(len, probes))
    scored = torch.tensor([[at < len(row) for at in range(width)] for row in probes])
    padded = [row + [(1.0, 1.0)] * (width - len(row)) for row in probes]
    return PrefixScores(
        cuts=torch.tensor([[2 * cut for cut in range(width)]] * len(probes)) * scored,
        mask=scored,
        mean_log_prob=torch.tensor([[math.log(accuracy) for accuracy, _ in row] for row in padded]),
        mean_entropy=torch.tensor([[-math.log(confidence) for _, confidence in row] for row in padded]),
        tokens=3 * scored.any(dim=-1),
    )


def batch(correct: list[bool], labels: list[str], probes: list[list[Probe]]) -> MethodBatch:
    """Six tokens per rollout."""
    return MethodBatch(
        rewards=torch.zeros(len(correct), 6),
        response_mask=torch.ones(len(correct), 6),
        groups=RolloutGroups.from_labels(labels),
        correct=torch.tensor(correct),
        prefix_scores=scores_of(probes),
    )


def advantages(of: MethodBatch, config: SPAEConfig) -> torch.Tensor:
    found = METHOD.advantage(of, config)
    expected = torch.tensor(reference.advantage(of, config), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    return found


@pytest.mark.parametrize(
    ("accuracy", "confidence", "expected"),
    [(1.0, 1.0, 1.0), (1e-9, 1.0, -1.0), (1e-9, 1e-9, 0.0), (0.5, 0.5, 0.125), (0.5, 1.0, 0.0)],
)
def test_the_potential_of_right_wrong_and_unsure(accuracy: float, confidence: float, expected: float) -> None:
    """1.5 Acc Conf + 0.5 Acc - Conf; of halves 0.375 + 0.25 - 0.5, of a half and 1: 0.75 + 0.25 - 1."""
    found = step_potential(scores_of([[(accuracy, confidence)]]), SPAEConfig())
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_solved_steps_take_from_what_follows_them() -> None:
    """The first step is solved, the second is not, the third is: tokens 2 to 5 follow one, token 6 two.

    1 - 0.5 (1 - 1/e) and 1 - 0.5 (1 - 1/e^2). A solved prompt alone counts for nothing.
    """
    scores = scores_of([[(1.0, 1.0), (1.0, 1.0), (0.5, 1.0), (1.0, 1.0)], [(1.0, 1.0)]])
    factor = saturation_factor(step_potential(scores, SPAEConfig()), scores, 7, SPAEConfig())
    one, two = 0.5 + 0.5 / math.e, 0.5 + 0.5 / math.e**2
    assert factor[0].tolist() == pytest.approx([1, 1, one, one, one, one, two])
    assert factor[1].tolist() == [1.0] * 7


def test_rising_potential_by_hand() -> None:
    """dPhi = 0.5, -0.5 and 0, scaled 1, 0 and 0.5: e, 1 and sqrt(e), less their mean."""
    potential = torch.tensor([[0.0, 0.5, 0.0], [0.3, 0.3, 7.0]], dtype=torch.float64)
    shaping = difference_shaping(potential, torch.tensor([[True, True], [True, False]]))
    mean = (math.e + 1 + math.sqrt(math.e)) / 3
    assert shaping[0].tolist() == pytest.approx([math.e - mean, 1 - mean])
    assert shaping[1].tolist() == pytest.approx([math.sqrt(math.e) - mean, 0])


def test_a_batch_without_steps_or_with_equal_ones_has_no_shaping() -> None:
    same = torch.tensor([[0.1, 0.1, 0.1]])
    assert not difference_shaping(same, torch.ones(1, 2, dtype=torch.bool)).any()
    assert not difference_shaping(same * torch.tensor([1, 2, 3]), torch.zeros(1, 2, dtype=torch.bool)).any()
    assert difference_shaping(torch.zeros(2, 1), torch.zeros(2, 0, dtype=torch.bool)).shape == (2, 0)


def test_whitening_is_over_the_tokens_of_the_batch() -> None:
    """Of 1, 3, 5 the mean is 3 and the unbiased std 2; equal values and a single one are exactly 0."""
    values, mask = torch.tensor([[1.0, 3.0], [5.0, 99.0]]), torch.tensor([[True, True], [True, False]])
    assert whitened(values, mask).tolist() == [pytest.approx([-1.0, 0.0]), pytest.approx([1.0, 0.0])]
    assert not whitened(torch.full((2, 2), 0.1), mask).any()
    assert not whitened(values, torch.tensor([[False, False], [True, False]])).any()
    assert not whitened(values, torch.zeros(2, 2, dtype=torch.bool)).any()


MIXED = batch(
    [True, False, False],
    ["q", "q", "other"],
    [[(0.1, 0.2), (0.9, 0.9), (1.0, 1.0)], [(0.1, 0.2), (0.1, 0.9)], [(0.3, 0.3), (0.2, 0.8), (0.3, 0.7)]],
)


def test_the_whole_rule_is_the_references() -> None:
    found = advantages(MIXED, SPAEConfig())
    assert found.mean().item() == pytest.approx(0, abs=1e-12)
    assert found.std().item() == pytest.approx(1, abs=1e-6)
    assert found[0, 0] > found[1, 0]


def test_without_penalty_and_shaping_it_is_whitened_dr_grpo() -> None:
    found = advantages(MIXED, SPAEConfig(saturation_penalty=0, shaping_weight=0))
    outcome = torch.tensor([0.5, -0.5, 0.0], dtype=torch.float64).unsqueeze(-1).expand(3, 6)
    torch.testing.assert_close(found, outcome / (outcome.std() + 1e-8))


def test_groups_of_one_outcome_learn_from_the_potential_and_not_without_it() -> None:
    wrong = batch([False, False], ["q", "q"], [[(0.1, 0.2), (0.1, 0.9)], [(0.1, 0.2), (0.6, 0.3)]])
    found = advantages(wrong, SPAEConfig())
    assert found[1, 0] > found[1, 5] > found[0, 0]  # unsure and righter, no step, surer of something wrong
    assert not advantages(wrong, SPAEConfig(shaping_weight=0)).any()


def test_rollouts_without_scores_have_the_outcome_alone() -> None:
    of = batch([True, False], ["q", "q"], [[], [(0.5, 0.5)]])
    assert advantages(of, SPAEConfig())[0].tolist() == pytest.approx([math.sqrt(11 / 12)] * 6)


def test_steps_end_at_the_separator_and_where_the_answer_is_opened() -> None:
    request = CutRequest(torch.zeros(6), ["a", ".\n\n", "b", "\n\n", "c", "4"], trace_length=5)
    assert METHOD.prefix_cuts.positions(request, SPAEConfig()) == [2, 5]
    assert METHOD.prefix_cuts.lead_in(SPAEConfig()) == "**Final Answer**\n\\boxed{"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("joint_weight", -1),
        ("saturation_threshold", math.nan),
        ("saturation_penalty", 1.5),
        ("shaping_weight", "much"),
        ("step_separator", ""),
        ("max_steps", 1.5),
        ("lead_in", None),
        ("probes", 5),
    ],
)
def test_values_out_of_range_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{key}"):
        SPAEConfig.from_mapping({key: value})
