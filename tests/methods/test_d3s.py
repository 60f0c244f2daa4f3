"""D3S: which rollouts and tokens stay, by hand, the schedule, the limit in which all stay, and the settings.

Not exercised: the trainer, which takes the others out of the mask, and the effect on training.
"""

from __future__ import annotations

import itertools
import statistics

import pytest
import torch

from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.methods.d3s import METHOD, D3SConfig, kept_rollouts, kept_tokens, largest_variance
from verl_ispo.methods.method import MethodBatch
from verl_ispo.signals.groups import RolloutGroups


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def chosen(advantages: list[float], number: int, entropies: list[float] | None = None) -> list[int]:
    entropy = numbers(*(entropies or [0.0] * len(advantages)))
    return sorted(largest_variance(numbers(*advantages), entropy, number).tolist())


def test_rollouts_by_hand() -> None:
    """The extremes first; of three, one 2 and two -1 vary more than 2, 1 and -1."""
    assert chosen([-2.0, 2.0, 1.0, -1.0], 2) == [0, 1]
    assert chosen([-1.0, 2.0, 1.0, -1.0], 3) == [0, 1, 3]
    assert chosen([-1.0, 2.0, 1.0, -1.0], 4) == [0, 1, 2, 3]


def test_no_other_choice_varies_more() -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(1, 8):
        values = torch.randn(7, generator=generator, dtype=torch.float64).tolist()
        best = max(statistics.pvariance(some) for some in itertools.combinations(values, number))
        assert statistics.pvariance([values[row] for row in chosen(values, number)]) == pytest.approx(best)


def test_of_equal_advantages_the_less_sure_rollouts_stay() -> None:
    assert chosen([1.0, 1.0, -1.0, -1.0], 2, [0.1, 0.2, 0.4, 0.3]) == [1, 2]
    assert chosen([0.0, 0.0, 0.0], 1, [0.1, 0.3, 0.2]) == [1]


def kept(
    labels: str, advantages: list[float], prompt_share: float, batch_share: float, lengths: str = ""
) -> list[bool]:
    has_tokens = torch.tensor([length != "0" for length in lengths or "1" * len(labels)])
    groups = RolloutGroups.from_labels(labels)
    entropy = torch.arange(len(labels), dtype=torch.float64)
    return kept_rollouts(numbers(*advantages), entropy, has_tokens, groups, prompt_share, batch_share).tolist()


def test_prompts_then_the_step() -> None:
    """Each prompt keeps two; of these six the two with A = 0 of the collapsed prompt and the one with -0.5 go."""
    advantages = [1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 1.2, 1.2, -1.2, -1.2]
    first = kept("aaaabbbbcccc", advantages, 0.5, 1.0)
    assert [row for row, stays in enumerate(first) if stays] == [0, 3, 6, 7, 9, 11]
    second = kept("aaaabbbbcccc", advantages, 0.5, 0.5)
    assert [row for row, stays in enumerate(second) if stays] == [0, 9, 11]


def test_corners_of_the_rollouts() -> None:
    """A single rollout stays, a prompt keeps two at least, a row without tokens neither stays nor counts."""
    assert kept("a", [1.0], 0.1, 0.1) == [True]
    assert kept("aaaa", [1.5, -0.5, -0.5, -0.5], 0.1, 1.0) == [True, False, False, True]
    assert kept("aab", [1.0, -1.0, 0.0], 0.5, 1.0, "110") == [True, True, False]
    assert kept("ab", [0.0, 0.0], 0.5, 0.5, "00") == [False, False]


def test_tokens_by_hand() -> None:
    """Of five candidates 40 % are two; with a tie at the second both stay."""
    score = numbers(0.5, 0.4, 0.3, 0.2, 0.1, 9.0).unsqueeze(0)
    candidates = torch.tensor([[True] * 5 + [False]])
    assert kept_tokens(score, candidates, 0.4).tolist() == [[True, True, False, False, False, False]]
    tied = numbers(0.5, 0.4, 0.4, 0.2, 0.1, 9.0).unsqueeze(0)
    assert kept_tokens(tied, candidates, 0.4).tolist() == [[True, True, True, False, False, False]]
    assert not kept_tokens(score, torch.zeros_like(candidates), 0.4).any()


def test_the_schedule() -> None:
    config = D3SConfig()
    assert config.shares(1, 101) == (0.5, 0.8, 0.4)
    assert config.shares(51, 101) == pytest.approx((0.75, 0.9, 0.7))
    assert config.shares(101, 101) == (1.0, 1.0, 1.0)
    assert config.shares(1, 1) == (0.5, 0.8, 0.4)


@pytest.mark.parametrize(("step", "stay"), [(1, 3), (11, 12)])
def test_few_tokens_at_first_and_all_in_the_end(step: int, stay: int) -> None:
    """Four rollouts of three tokens: two, of which 80 % are two, and 40 % of six tokens are three; at the end all."""
    batch = MethodBatch(
        rewards=torch.tensor([[0.0, 0.0, score] for score in (1.0, 0.0, 0.0, 1.0)]),
        response_mask=torch.ones(4, 3),
        groups=RolloutGroups.from_labels("aaaa"),
        entropy=torch.arange(12.0).reshape(4, 3),
        step=step,
        total_steps=11,
    )
    assert METHOD.keeps(batch, D3SConfig()).sum() == stay


@pytest.mark.parametrize("value", [0.0, 1.1])
def test_shares_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"d3s\.initial_token_share must be a number in \(0, 1\]"):
        D3SConfig.from_mapping({"initial_token_share": value})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownISPOKeyError, match="initial_token_share"):
        D3SConfig.from_mapping({"token_share": 0.2})
