"""Advantage reweighting: the weight by probability, and GRPO at a = 0.

Not exercised: Lopti, which is not built.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from verl_ispo.methods.ar import ARConfig, probability_weight
from verl_ispo.signals.checks import NonFiniteSignalError, SignalShapeError

LOG_PROB = torch.tensor([[0.0, math.log(0.5), -1e4], [math.nan, -1.0, math.log(0.25)]])
MASK = torch.tensor([[1, 1, 1], [0, 0, 1]])


def test_by_hand() -> None:
    """a = 0.2: 1 for a certain token, 0.9 at 1/2, 0.8 at 0, 0.85 at 1/4; masked positions may hold anything."""
    found = probability_weight(LOG_PROB, MASK, 0.2)
    assert found[0].tolist() == pytest.approx([1.0, 0.9, 0.8])
    assert found[1].tolist() == pytest.approx([0.0, 0.0, 0.85])


def test_a_of_0_is_grpo_and_a_of_1_the_probability() -> None:
    assert probability_weight(LOG_PROB, MASK, 0.0).tolist() == MASK.tolist()
    assert probability_weight(LOG_PROB, MASK, 1.0)[0].tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_a_log_prob_that_rounds_above_0_is_certain() -> None:
    assert probability_weight(torch.tensor([[1e-3]]), torch.ones(1, 1), 0.2).item() == 1.0


def test_bad_input_is_named() -> None:
    with pytest.raises(NonFiniteSignalError, match="log_prob is nan at row 1, position 0"):
        probability_weight(LOG_PROB, torch.ones(2, 3), 0.2)
    with pytest.raises(SignalShapeError, match="log_prob"):
        probability_weight(LOG_PROB, torch.ones(2, 2), 0.2)


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.2", None])
def test_an_alpha_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.ar\.alpha must be a number in \[0, 1\]"):
        ARConfig.from_mapping({"alpha": value})
