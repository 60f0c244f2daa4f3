r"""PACR: GRPO, plus each step's discounted gain in the log-prob of the ground truth, scaled over the group.

Not exercised: the forward that scores the ground truth (tests/trainer/test_prefix_forward.py); the trainer around it,
which is that of GRPO-VPS (tests/training/test_methods.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.references import pacr as reference
from verl_ispo.methods.method import CutRequest, MethodBatch, PrefixScores
from verl_ispo.methods.pacr import METHOD, PACRConfig, discounted_gains
from verl_ispo.signals.groups import RolloutGroups


def batch(grpo: list[float], labels: list[str], confidences: list[list[float]]) -> MethodBatch:
    """Seven tokens per rollout, ground truths of four tokens, cuts at 0, 2, 4, 6 as far as there are confidences c."""
    rows, mask = len(grpo), torch.ones(len(grpo), 7)
    scored = torch.tensor([[at < len(row) for at in range(4)] for row in confidences])
    scores = PrefixScores(
        cuts=torch.tensor([[0, 2, 4, 6]] * rows) * scored,
        mask=scored,
        mean_log_prob=torch.tensor([[value / 4 for value in row] + [0.0] * (4 - len(row)) for row in confidences]),
        mean_entropy=torch.zeros(rows, 4),
        tokens=4 * scored.any(dim=-1),
    )
    return MethodBatch(
        rewards=torch.zeros(rows, 7),
        response_mask=mask,
        groups=RolloutGroups.from_labels(labels),
        grpo_advantage=torch.tensor(grpo).unsqueeze(-1) * mask,
        prefix_scores=scores,
    )


def advantages(of: MethodBatch, config: PACRConfig) -> list[list[float]]:
    found = METHOD.advantage(of, config).tolist()
    assert found == [pytest.approx(row, abs=1e-9) for row in reference.advantage(of, config)]
    return found


PAIR = [[-8.0, -4.0, -6.0, -2.0], [-8.0, -8.0, -12.0]]


def test_a_group_by_hand() -> None:
    """Without discount G is c at the end less c before: 6, 2, 4 and -4, -4. From -4 to 6: 1, 0.6, 0.8 and 0, 0."""
    first, second = advantages(batch([0.5, -0.5], ["q", "q"], PAIR), PACRConfig(progress_weight=1))
    assert first == pytest.approx([1.5, 1.5, 1.1, 1.1, 1.3, 1.3, 0.5])
    assert second == pytest.approx([-0.5] * 7)


def test_the_discount_by_hand() -> None:
    """Gains 4, -2, 4 and 0, -4; at one half G = 4 - 1 + 1, -2 + 2, 4 and 0 - 2, -4. From -4 to 4: 1, 0.5, 1, ..."""
    of = batch([0.0, 0.0], ["q", "q"], PAIR)
    assert discounted_gains(of.prefix_scores, 0.5).tolist() == [[4, 0, 4], [-2, -4, 0]]
    first, second = advantages(of, PACRConfig(progress_weight=1, gamma=0.5))
    assert first == pytest.approx([1, 1, 0.5, 0.5, 1, 1, 0])
    assert second == pytest.approx([0.25, 0.25, 0, 0, 0, 0, 0])
    assert discounted_gains(of.prefix_scores, 0).tolist() == [[4, -2, 4], [0, -4, 0]]


def test_without_weight_it_is_grpo() -> None:
    of = batch([0.5, -0.5], ["q", "q"], PAIR)
    assert advantages(of, PACRConfig(progress_weight=0)) == of.grpo_advantage.tolist()


def test_the_scale_is_the_groups_own() -> None:
    """The other prompt's gains of 100 change nothing; a single rollout is scaled over its own steps."""
    of = batch([0.0] * 3, ["q", "q", "alone"], [*PAIR, [-200.0, -100.0, -150.0]])
    assert advantages(of, PACRConfig())[:2] == advantages(batch([0.0] * 2, ["q", "q"], PAIR), PACRConfig())
    # G = 50 and -50
    assert advantages(of, PACRConfig(progress_weight=1))[2] == pytest.approx([1, 1, 0, 0, 0, 0, 0])


def test_equal_gains_and_rollouts_without_scores_have_grpos_advantage() -> None:
    of = batch([1.0, -1.0, 0.0, 0.0], ["q", "q", "none", "none"], [[-2.0, -1.0], [-3.0, -2.0], [], [-1.0]])
    assert advantages(of, PACRConfig(progress_weight=1)) == of.grpo_advantage.tolist()


def test_the_default_weight_turns_no_sign_in_a_group_of_99() -> None:
    """One correct rollout of n has (1 - 1/n) / std, an incorrect one -(1/n) / std with std = 1 / sqrt(n)."""
    assert PACRConfig().progress_weight < 1 / math.sqrt(99)


def test_tokens_outside_the_mask_get_nothing() -> None:
    of = batch([0.5, -0.5], ["q", "q"], PAIR)
    of.response_mask[0, 1:3] = 0
    first, _ = advantages(of, PACRConfig())
    assert first[1:3] == [0.0, 0.0]


def test_steps_end_at_the_separator_and_where_the_answer_is_opened() -> None:
    request = CutRequest(torch.zeros(6), ["a", ".\n\n", "b", "\n\n", "\\boxed{", "4"], trace_length=4)
    ends = METHOD.prefix_cuts.positions
    assert ends(request, PACRConfig()) == [2, 4]
    assert ends(request, PACRConfig(max_steps=1)) == [4]
    assert METHOD.prefix_cuts.lead_in(PACRConfig()) == "\\boxed{"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outcome_weight", -1),
        ("progress_weight", math.inf),
        ("gamma", 1.5),
        ("step_separator", ""),
        ("max_steps", 0),
        ("lead_in", 3),
        ("discount", 1),
    ],
)
def test_values_out_of_range_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{key}"):
        PACRConfig.from_mapping({key: value})
