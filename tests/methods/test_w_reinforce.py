"""PSR, NSR and W-REINFORCE: the weights by outcome, the sign advantage as the case (1, 1), and the three presets.

Not exercised: what no test of an advantage can, the effect on training.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from verl_ispo.method_presets import read_preset
from verl_ispo.methods.sign import sign_advantage
from verl_ispo.methods.w_reinforce import WReinforceConfig, weighted_reinforce_advantage

CORRECT = torch.tensor([True, False, False, True])


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("w_reinforce", [0.1, -1, -1, 0.1]), ("psr", [1, 0, 0, 1]), ("nsr", [0, -1, -1, 0])],
)
def test_each_preset_by_hand(preset: str, expected: list[float]) -> None:
    """The paper's three: correct x 0.1 with incorrect whole, correct alone, incorrect alone."""
    section = "algorithm.w_reinforce."
    changes = read_preset(preset).changes
    given = {key.removeprefix(section): value for key, value in changes.items() if key.startswith(section)}
    found = weighted_reinforce_advantage(CORRECT, WReinforceConfig.from_mapping(given))
    assert found.tolist() == expected


def test_equal_weights_of_1_are_the_sign_advantage() -> None:
    found = weighted_reinforce_advantage(CORRECT, WReinforceConfig(1.0, 1.0))
    assert found.tolist() == sign_advantage(CORRECT).tolist()


def test_the_w_reinforce_preset_has_the_defaults() -> None:
    changes = read_preset("w_reinforce").changes
    assert changes["algorithm.w_reinforce.correct_weight"] == WReinforceConfig().correct_weight
    assert changes["algorithm.w_reinforce.incorrect_weight"] == WReinforceConfig().incorrect_weight


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"correct_weight": -0.1}, r"algorithm\.w_reinforce\.correct_weight must be a number in \[0, inf\), got -0\.1"),
        ({"incorrect_weight": "1"}, r"algorithm\.w_reinforce\.incorrect_weight .* got '1'"),
        ({"correct_weight": 0, "incorrect_weight": 0}, "both 0.*Set one of them above 0"),
        ({"weight": 1}, r"'weight' \(under algorithm\.w_reinforce\)"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WReinforceConfig.from_mapping(settings)
