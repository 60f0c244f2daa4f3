r"""GRPO-VPS: where segments end, and what each adds to the probability of the ground truth.

Not exercised: the forward that scores the ground truth (tests/trainer/test_prefix_forward.py) and the trainer around it
(tests/training/test_methods.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.references import grpo_vps as reference
from verl_ispo.methods.grpo_vps import METHOD, GRPOVPSConfig, cut_points, segment_ends
from verl_ispo.methods.method import CutRequest, MethodBatch, PrefixScores
from verl_ispo.signals.groups import RolloutGroups


def ends(entropy: list[float], trace_length: int, **settings: Any) -> list[int]:
    return segment_ends(CutRequest(torch.tensor(entropy), [], trace_length), GRPOVPSConfig(**settings))


ENTROPY = [0.1, 0.9, 0.2, 0.8, 0.7, 0.3, 0.6, 0.4, 0.95, 0.5]


@pytest.mark.parametrize(
    ("percentile", "points"),
    [(0.5, [1, 3, 4, 6, 8]), (0.85, [1, 8]), (0.95, [8]), (1.0, [8]), (0.0, list(range(10)))],
)
def test_cut_points_are_the_tokens_at_or_above_the_percentile(percentile: float, points: list[int]) -> None:
    """Of the nine steps from the lowest entropy to the highest, 0.5 are 4.5, so 5; 0.85 are 7.65, so 8; 0.95 all 9."""
    assert cut_points(torch.tensor(ENTROPY), percentile) == points


def test_equal_entropies_are_all_cut_points() -> None:
    assert cut_points(torch.zeros(3), 0.95) == [0, 1, 2]
    assert cut_points(torch.zeros(0), 0.95) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # ten cut points; n = 4 gives round(2.5) = 3 segments, which begin at cut points 0, 3 and 6
        ({}, [3, 6, 10]),
        ({"cut_points_per_segment": 5}, [5, 10]),
        ({"cut_points_per_segment": 1, "max_segments": None}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"cut_points_per_segment": 1}, [1, 3, 5, 6, 8, 10]),  # six at most: they begin at 10 k / 6, rounded down
        ({"cut_points_per_segment": 30}, [10]),
    ],
)
def test_segments_hold_about_as_many_cut_points(settings: dict[str, Any], expected: list[int]) -> None:
    assert ends(ENTROPY, 10, entropy_percentile=0.0, **settings) == expected


def test_segments_begin_at_cut_points_and_end_where_the_answer_is_opened() -> None:
    """At the median the cut points are 1, 3, 4, 6 and 8; the answer is opened at 7, so 8 is none of them."""
    halves = {"entropy_percentile": 0.5, "cut_points_per_segment": 2}
    assert ends(ENTROPY, 10, **halves) == [3, 6, 10]  # round(5 / 2) = 3 segments, at cut points 0, 1 and 3
    assert ends(ENTROPY, 7, **halves) == [4, 7]  # round(4 / 2) = 2 segments
    assert ends(ENTROPY, 1, **halves) == [1]  # no cut point before the answer
    assert ends(ENTROPY, 0, **halves) == []
    assert ends([], 0, **halves) == []


def batch(correct: list[bool], labels: list[str], probabilities: list[list[float]]) -> MethodBatch:
    """Six tokens per rollout, ground truths of two tokens, cuts at 0, 2 and 4 as far as there are probabilities."""
    rows, mask = len(correct), torch.ones(len(correct), 6)
    scored = torch.tensor([[at < len(row) for at in range(3)] for row in probabilities])
    mean = torch.tensor([[math.log(value) / 2 for value in row] + [0.0] * (3 - len(row)) for row in probabilities])
    scores = PrefixScores(
        cuts=torch.tensor([[0, 2, 4]] * rows) * scored,
        mask=scored,
        mean_log_prob=mean,
        mean_entropy=torch.zeros(rows, 3),
        tokens=2 * scored.any(dim=-1),
    )
    return MethodBatch(
        rewards=torch.zeros(rows, 6),
        response_mask=mask,
        groups=RolloutGroups.from_labels(labels),
        correct=torch.tensor(correct),
        prefix_scores=scores,
    )


def advantages(of: MethodBatch, config: GRPOVPSConfig) -> list[list[float]]:
    found = METHOD.advantage(of, config).tolist()
    expected = reference.advantage(of, config)
    assert found == [pytest.approx(row, abs=1e-9) for row in expected]
    return found


def test_a_mixed_group_by_hand() -> None:
    """R - mean R is 0.5 and -0.5. 1.2 times: 0.1 to 0.6 is +0.6, to 0.5 is -0.12; 0.1 to 0.2 is +0.12, then unscored.

    The last two tokens are lead-in and answer.
    """
    of = batch([True, False], ["q", "q"], [[0.1, 0.6, 0.5], [0.1, 0.2]])
    first, second = advantages(of, GRPOVPSConfig())
    assert first == pytest.approx([1.1, 1.1, 0.38, 0.38, 0.5, 0.5], abs=1e-6)
    assert second == pytest.approx([-0.38, -0.38, -0.5, -0.5, -0.5, -0.5], abs=1e-6)


def test_groups_of_one_outcome_and_single_rollouts_have_the_progress_alone() -> None:
    of = batch([False, False, True], ["wrong", "wrong", "alone"], [[0.1, 0.3], [0.2, 0.1], [0.5, 0.75]])
    wrong, worse, alone = advantages(of, GRPOVPSConfig())
    assert wrong == pytest.approx([0.24, 0.24, 0, 0, 0, 0], abs=1e-6)
    assert worse == pytest.approx([-0.12, -0.12, 0, 0, 0, 0], abs=1e-6)
    assert alone == pytest.approx([0.3, 0.3, 0, 0, 0, 0], abs=1e-6)


def test_without_weight_or_without_scores_it_is_dr_grpo() -> None:
    of = batch([True, False, False, False], ["q"] * 4, [[0.1, 0.6], [0.1], [], [0.3, 0.9, 0.1]])
    outcome = [[0.75] * 6, *[[-0.25] * 6] * 3]
    assert advantages(of, GRPOVPSConfig(progress_weight=0)) == outcome
    assert advantages(of, GRPOVPSConfig())[1:3] == outcome[1:3]


def test_progress_adds_up_to_what_the_whole_trace_adds() -> None:
    """On segments of one length: the mean of the progress times the segments is C at the end minus C at the start."""
    of = batch([True], ["q"], [[0.25, 0.125, 0.5]])
    (row,) = advantages(of, GRPOVPSConfig(progress_weight=1))
    assert sum(row) / 2 == pytest.approx(0.5 - 0.25, abs=1e-6)


def test_tokens_outside_the_mask_get_nothing() -> None:
    of = batch([True, False], ["q", "q"], [[0.1, 0.6, 0.5], [0.1, 0.2]])
    of.response_mask[0, 1] = of.response_mask[1, 3:] = 0
    first, second = advantages(of, GRPOVPSConfig())
    assert (first[1], second[3:]) == (0.0, [0.0] * 3)
    assert first[0] == pytest.approx(1.1, abs=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("progress_weight", -1),
        ("entropy_percentile", 1.5),
        ("cut_points_per_segment", 0),
        ("cut_points_per_segment", 2.5),
        ("max_segments", 0),
        ("lead_in", None),
        ("alpha", 1),
    ],
)
def test_values_out_of_range_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{key}"):
        GRPOVPSConfig.from_mapping({key: value})


def test_no_bound_on_segments_can_be_set() -> None:
    assert GRPOVPSConfig.from_mapping({"max_segments": None}).max_segments is None
