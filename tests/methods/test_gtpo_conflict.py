"""GTPO with conflict tokens: the runs and the advantage by hand, the gradient of its loss, corners and settings.

Not exercised: the effect on training.
"""

from __future__ import annotations

import pytest
import torch

from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.methods.gtpo_conflict import METHOD, GTPOConflictConfig, conflict_runs, gtpo_conflict_loss
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.signals.groups import RolloutGroups


def padded(texts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    return ids, torch.arange(width) < torch.tensor([len(text) for text in texts]).unsqueeze(-1)


def runs(
    texts: list[list[int]], signs: list[float], labels: str | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Places of the conflict tokens of each row, from the start and at the end."""
    groups = RolloutGroups.from_labels(labels or "a" * len(texts))
    found = conflict_runs(*padded(texts), torch.tensor(signs), groups)
    return tuple([row.nonzero().flatten().tolist() for row in side] for side in found)


def test_runs_by_hand() -> None:
    """Both begin with 1 2, then differ; counted from the end they share 9 8; the 5 in the middle is behind a break."""
    start, end = runs([[1, 2, 3, 5, 8, 9], [1, 2, 4, 5, 6, 7, 8, 9]], [1, -1])
    assert start == [[0, 1], [0, 1]]
    assert end == [[4, 5], [6, 7]]


def test_each_place_may_have_another_partner() -> None:
    """The first row shares 1 with the second and 2 with the third, whose own run ends at once."""
    start, end = runs([[1, 2, 3], [1, 7, 7], [6, 2, 5]], [1, -1, -1])
    assert start == [[0, 1], [0], []]
    assert end == [[], [], []]


@pytest.mark.parametrize(
    ("signs", "labels"), [([1, 1], "aa"), ([-1, -1], "aa"), ([1, 0], "aa"), ([0, 0], "aa"), ([1, -1], "ab")]
)
def test_without_both_signs_in_a_group_there_is_no_conflict(signs: list[float], labels: str) -> None:
    assert runs([[1, 2], [1, 2]], signs, labels) == ([[], []], [[], []])


def test_tokens_that_the_policy_did_not_write_have_no_place() -> None:
    ids = torch.tensor([[1, 0, 2, 3], [1, 2, 0, 3]])
    mask = torch.tensor([[True, False, True, True], [True, True, False, True]])
    start, _ = conflict_runs(ids, mask, torch.tensor([1.0, -1.0]), RolloutGroups.from_labels("aa"))
    assert torch.equal(start, mask)


def advantage(
    texts: list[list[int]], scores: list[float], entropies: list[float], labels: str | None = None, **settings: float
) -> list[list[float]]:
    ids, mask = padded(texts)
    rewards = torch.zeros(mask.shape)
    rewards[:, 0] = torch.tensor(scores)
    batch = MethodBatch(
        rewards=rewards,
        response_mask=mask.long(),
        groups=RolloutGroups.from_labels(labels or "a" * len(texts)),
        normalize_by_std=False,
        entropy=torch.tensor(entropies).unsqueeze(-1).expand(mask.shape),
        response_ids=ids,
    )
    return METHOD.advantage(batch, GTPOConflictConfig(**settings)).tolist()


def test_advantage_by_hand() -> None:
    """A = +-1/2, less 0.05: 0.45 and -0.55. One conflict token each: doubled, and 0. Here the two runs do not meet."""
    found = advantage([[1, 2, 3], [1, 4, 5]], [1.0, 0.0], [0.5, 0.5])
    assert found == [pytest.approx([0.9, 0.45, 0.45]), pytest.approx([0.0, -0.55, -0.55])]


def test_the_number_of_conflict_tokens_divides_and_both_runs_multiply() -> None:
    """Equal texts are one run from either side: weight 4 or 0, divided by the two conflict tokens."""
    assert advantage([[1, 2], [1, 2]], [1.0, 0.0], [0.0, 0.0]) == [[1.0, 1.0], [0.0, 0.0]]


def test_unsure_rollouts_are_left_out_but_make_conflicts() -> None:
    found = advantage([[1, 2], [1, 3]], [1.0, 0.0], [0.75, 0.0])
    assert found == [[0.0, 0.0], [0.0, -0.5]]


def test_what_is_left_without_a_baseline() -> None:
    """Groups of one outcome: -0.1 H. A single rollout: its reward less 0.1 H. A row without tokens gets nothing."""
    found = advantage([[1], [1], [1], [1], []], [1.0, 1.0, 0.0, 1.0, 0.0], [0.2, 0.4, 0.6, 0.5, 9.0], "aabcd")
    assert [row[0] for row in found] == pytest.approx([-0.02, -0.04, -0.06, 0.95, 0.0])


def test_without_conflict_and_entropy_it_is_dr_grpo() -> None:
    assert advantage([[1], [2], [3], [4]], [1.0, 0, 0, 0], [0.3] * 4, entropy_weight=0.0) == [[0.75], *[[-0.25]] * 3]


def test_the_gradient_is_that_of_log_p_anywhere() -> None:
    log_ratio = torch.tensor([[-30.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    batch = LossBatch(
        log_ratio=log_ratio.clamp(-20, 20),
        unclamped_log_ratio=log_ratio,
        advantages=advantages,
        response_mask=torch.ones(1, 3, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
    )
    found = gtpo_conflict_loss(batch, GTPOConflictConfig())
    found.loss.sum().backward()
    assert torch.equal(found.loss, -advantages)
    assert torch.equal(log_ratio.grad, -advantages)
    assert not found.clipped.any()


@pytest.mark.parametrize("key", ["positive_weight", "negative_weight", "entropy_weight", "max_entropy"])
def test_settings_below_zero_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=rf"gtpo_conflict\.{key} must be a number in \[0"):
        GTPOConflictConfig.from_mapping({key: -0.1})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownISPOKeyError, match="max_entropy"):
        GTPOConflictConfig.from_mapping({"maximal_entropy": 0.7})
