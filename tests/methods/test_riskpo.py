"""RiskPO: bundles, the quantiles from step to step, the advantage of a bundle and its credit to the rollouts.

Not exercised: the authors' other risk measures (upper tail, mean as baseline), which are not built; the file of the
state (tests/trainer).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from verl_ispo.methods.method import MethodBatch
from verl_ispo.methods.riskpo import (
    METHOD,
    RiskPOConfig,
    RiskQuantiles,
    bundled_rollouts,
    credited,
    next_quantiles,
    risk_advantage,
    tracked_quantiles,
)
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.method_adapter import MissingSignalsError


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch(labels: str, scores: list[float], state: RiskQuantiles | None = None) -> MethodBatch:
    """Rows of one token; rows of group `-` have none."""
    mask = torch.tensor([[label != "-"] for label in labels])
    rewards = torch.tensor(scores).unsqueeze(-1)
    return MethodBatch(rewards=rewards, response_mask=mask, groups=RolloutGroups.from_labels(labels), state=state)


def test_bundles_are_consecutive_prompts_by_their_first_row() -> None:
    """Prompts b, a, c in this order; rows of a prompt in the order of the batch; the padding row is no prompt."""
    found = bundled_rollouts(torch.tensor([[1], [1], [0], [1], [1], [1], [1]]), RolloutGroups.from_labels("ba-acbc"), 2)
    assert [rows.tolist() for rows in found] == [[[0, 1], [5, 3]], [[4], [6]]]


def test_a_bundle_has_as_many_sums_as_its_smallest_group() -> None:
    found = bundled_rollouts(torch.ones(5, 1), RolloutGroups.from_labels("aaabb"), 5)
    assert [rows.tolist() for rows in found] == [[[0, 3], [1, 4]]]
    scores = [1.0, 0.0, 1.0, 0.0, 1.0]
    assert METHOD.advantage(batch("aaabb", scores), RiskPOConfig())[2] == 0


def test_quantiles_start_at_the_batchs_own_and_then_move_by_a_tenth() -> None:
    """0 to 10: 2 and 9. Then 3 of 11 sums lie below 3: 3 + 0.1 (0.2 - 3/11); 9 of 11 below 9: 9 + 0.1 (0.9 - 9/11)."""
    sums = doubles(*range(11))
    first = tracked_quantiles(RiskQuantiles(), sums, RiskPOConfig())
    assert (first.low, first.high) == (pytest.approx(2.0), pytest.approx(9.0))
    later = tracked_quantiles(RiskQuantiles(3.0, 9.0), sums, RiskPOConfig())
    assert later.low == pytest.approx(3 + 0.1 * (0.2 - 3 / 11))
    assert later.high == pytest.approx(9 + 0.1 * (0.9 - 9 / 11))
    assert tracked_quantiles(later, doubles(), RiskPOConfig()) == later


def test_the_state_holds_the_quantiles_that_the_step_was_computed_with() -> None:
    given = batch("aabb", [0.0, 1.0, 0.0, 1.0])
    assert next_quantiles(RiskQuantiles(), given, RiskPOConfig()) == RiskQuantiles(
        pytest.approx(0.4), pytest.approx(1.8)
    )


def test_the_advantage_of_a_bundle_by_hand() -> None:
    """q = 1 and 3, S = 0, 2, 4. A_mid 0.7 = -2, -1, 0; A_tail 0.2 = -1, 0, 0; weights 1.5 and 1 over 2.5; std 2."""
    found = risk_advantage(doubles(0, 2, 4), RiskQuantiles(1.0, 3.0), RiskPOConfig())
    expected = [(1.5 * -1 / 0.2 - 2 / 0.7) / 2.5 / 2, -1 / 0.7 / 2.5 / 2, 0.0]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    no_baseline = RiskPOConfig(natural_baseline=False)
    found = risk_advantage(doubles(0, 2, 4), RiskQuantiles(1.0, 3.0), no_baseline, normalize_by_std=False)
    assert found.tolist() == pytest.approx([-1.5 / 0.2 / 2.5, 1 / 0.7 / 2.5, 2 / 0.7 / 2.5], rel=1e-4)


def test_a_single_sum_has_a_std_of_1() -> None:
    one = risk_advantage(doubles(0), RiskQuantiles(1.0, 3.0), RiskPOConfig())
    plain = risk_advantage(doubles(0), RiskQuantiles(1.0, 3.0), RiskPOConfig(), normalize_by_std=False)
    assert one.item() == pytest.approx(plain.item(), rel=1e-5)


def test_credit_by_hand() -> None:
    """Deviations 1/2 and 1/4 have the shares 2/3 and 1/3, 1/2 and -1/2 equal ones; a std of 0 counts as 1."""
    deviation = doubles(0.5, 0.25, 0.5, -0.5).reshape(2, 2)
    std = doubles(0.5, 0.0, 0.5, 0.0).reshape(2, 2)
    own = doubles(3.0, 4.0)
    assert credited(own, deviation, std, "uniform").tolist() == [[3.0, 3.0], [4.0, 4.0]]
    assert credited(own, deviation, std, "std").flatten().tolist() == pytest.approx([6.0, 3.0, 8.0, 4.0], rel=1e-5)
    assert credited(own, deviation, std, "sum-mean").flatten().tolist() == pytest.approx([2.0, 1.0, 2.0, 2.0])


def test_a_better_rollout_is_never_worth_less_with_uniform_credit() -> None:
    config = RiskPOConfig(credit="uniform", bundle_size=1)
    found = METHOD.advantage(batch("aaaa", [0.0, 0.25, 0.5, 1.0]), config)
    assert found.tolist() == sorted(found.tolist())
    assert found[0] < found[-1]


def test_an_empty_batch_and_padding_alone() -> None:
    assert METHOD.advantage(batch("--", [0.0, 0.0]), RiskPOConfig()).tolist() == [0.0, 0.0]
    assert next_quantiles(RiskQuantiles(1.0, 2.0), batch("-", [0.0]), RiskPOConfig()) == RiskQuantiles(1.0, 2.0)


def test_a_trainer_that_keeps_no_state_is_refused() -> None:
    """The rule needs nothing else, but its quantiles would start anew at every step."""
    with pytest.raises(
        MissingSignalsError, match=r"adv_estimator=riskpo needs its state from step to step, .*ispo_sync"
    ):
        get_adv_estimator_fn("riskpo")(torch.zeros(1, 1), torch.ones(1, 1), np.array(["q"]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bundle_size": 0}, r"algorithm\.riskpo\.bundle_size must be a number in \[1, inf\), got 0"),
        ({"bundle_size": 2.5}, r"algorithm\.riskpo\.bundle_size must be a whole number, got 2\.5"),
        ({"alpha_low": 0.9, "alpha_high": 0.2}, r"alpha_high must be a number in \(0\.9, 1\), got 0\.2"),
        ({"quantile_rate": 0}, r"algorithm\.riskpo\.quantile_rate must be a number in \(0, inf\)"),
        ({"credit": "score"}, r"algorithm\.riskpo\.credit must be one of .*'score'"),
        ({"natural_baseline": "yes"}, r"algorithm\.riskpo\.natural_baseline must be one of"),
        ({"alpha": 0.2}, r"'alpha' \(under algorithm\.riskpo\)"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RiskPOConfig.from_mapping(settings)
