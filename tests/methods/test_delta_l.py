"""Delta-L normalization: the weight by length, its mean of 1, and the two ends of alpha.

Not exercised: the aggregation, which is verl's and set by the preset.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from verl_ispo.method_presets import read_preset
from verl_ispo.methods.delta_l import DeltaLConfig, length_weight


def mask(*lengths: int) -> torch.Tensor:
    return (torch.arange(max(lengths, default=0)) < torch.tensor(lengths).unsqueeze(-1)).long()


def test_by_hand() -> None:
    """Lengths 1, 4, 4: mean 3, alpha 1/2: x = sqrt(3), sqrt(3)/2 twice; their mean is 2 sqrt(3)/3: weights 3/2, 3/4."""
    assert length_weight(mask(1, 4, 4), 0.5).tolist() == pytest.approx([1.5, 0.75, 0.75])


def test_alpha_0_is_grpo_and_alpha_1_gives_every_response_the_same_sum() -> None:
    lengths = torch.tensor([2, 5, 7])
    assert length_weight(mask(2, 5, 7), 0.0).tolist() == [1.0] * 3
    sums = length_weight(mask(2, 5, 7), 1.0) * lengths
    assert sums.tolist() == pytest.approx([sums[0].item()] * 3)


def test_equal_lengths_are_grpo_and_rows_without_tokens_do_not_count() -> None:
    assert length_weight(mask(3, 3), 0.75).tolist() == [1.0, 1.0]
    assert length_weight(mask(1, 4, 4, 0), 0.5).tolist() == pytest.approx([1.5, 0.75, 0.75, 0.0])
    assert length_weight(torch.zeros(2, 3), 0.75).tolist() == [0.0, 0.0]


def test_the_preset_sums_over_tokens() -> None:
    assert read_preset("delta_l").changes["actor_rollout_ref.actor.loss_agg_mode"] == "seq-mean-token-sum"


@pytest.mark.parametrize("value", [-0.1, 1.1, "1", None])
def test_an_alpha_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.delta_l\.alpha must be a number in \[0, 1\]"):
        DeltaLConfig.from_mapping({"alpha": value})
