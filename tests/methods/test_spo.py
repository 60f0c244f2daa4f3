"""SPO: the baseline and its update by hand, whitening, and which prompts are drawn.

Not exercised: the trainer that draws (tests/trainer/test_prompt_selection), and the effect on training.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
import torch

from verl_ispo.methods.method import MethodBatch, PromptCandidates
from verl_ispo.methods.prompt_drawing import weighted_draw
from verl_ispo.methods.spo import METHOD, SPOConfig, SPOState, draw, spo_advantage, success_rates, updated
from verl_ispo.signals.groups import RolloutGroups


def batch(keys: Sequence[str], verdicts: str, state: SPOState | None = None) -> MethodBatch:
    """One rollout of a token for each key; `""` is a padding row."""
    mask = torch.tensor([[int(bool(key))] for key in keys])
    return MethodBatch(
        rewards=torch.zeros(mask.shape),
        response_mask=mask,
        groups=RolloutGroups.from_labels(range(len(keys))),
        correct=torch.tensor([verdict == "1" for verdict in verdicts]),
        prompt_keys=keys,
        state=state or SPOState(),
    )


def test_the_baseline_by_hand() -> None:
    """A prompt with alpha 3 and beta 1 has p = 3/4; one without outcomes 1/2."""
    rates = success_rates(["a", "b"], SPOState({"a": [3.0, 1.0]}), SPOConfig())
    assert rates.tolist() == [0.75, 0.5]


def test_the_advantage_by_hand() -> None:
    """R - p is 1/4 and -1/2: mean -1/8, deviations 3/8, std 3/8 sqrt(2)."""
    found = spo_advantage(batch(["a", "b", ""], "100", SPOState({"a": [3.0, 1.0]})), SPOConfig())
    assert found.tolist() == pytest.approx([0.5**0.5, -(0.5**0.5), 0.0])


@pytest.mark.parametrize("verdicts", ["1", "11", "000"])
def test_equal_surprises_give_nothing(verdicts: str) -> None:
    keys = [str(number) for number in range(len(verdicts))]
    assert spo_advantage(batch(keys, verdicts), SPOConfig()).tolist() == pytest.approx([0.0] * len(verdicts))


def test_equal_outcomes_of_prompts_with_other_histories_are_no_equal_surprises() -> None:
    easy, hard = spo_advantage(batch(["a", "b"], "11", SPOState({"a": [9.0, 1.0], "b": [1.0, 9.0]})), SPOConfig())
    assert hard > 0 > easy


def test_the_counts_by_hand() -> None:
    """rho 1/2: alpha 1/2 * 1/2 + 1, beta 1/2 * 1/2; then, not correct, 1/2 * 5/4 and 1/2 * 1/4 + 1."""
    config = SPOConfig(rho=0.5)
    after = updated(SPOState(), batch(["a", ""], "10"), config)
    assert after == SPOState({"a": [1.25, 0.25]})
    assert updated(after, batch(["a"], "0"), config) == SPOState({"a": [0.625, 1.125]})
    assert after == SPOState({"a": [1.25, 0.25]})


def test_several_rollouts_of_a_prompt_decay_its_counts_once() -> None:
    found = updated(SPOState({"a": [2.0, 2.0]}), batch(["a", "a", "a"], "110"), SPOConfig(rho=0.5))
    assert found == SPOState({"a": [3.0, 2.0]})


def test_the_counts_stay_below_one_over_one_minus_rho() -> None:
    state = SPOState()
    for _ in range(200):
        state = updated(state, batch(["a"], "1"), SPOConfig())
    assert state.counts["a"] == pytest.approx([8.0, 0.0], abs=1e-6)


def test_the_state_survives_json() -> None:
    state = updated(SPOState(), batch(["a", "b"], "10"), SPOConfig())
    assert SPOState(**json.loads(json.dumps(asdict(state)))) == state


def test_weights_by_hand() -> None:
    """sqrt(1/4) + 0.05 without outcomes; p = 9/10 gives 0.3 + 0.05."""
    candidates = PromptCandidates(["a", "b"], 1, 1, SPOState({"b": [9.0, 1.0]}))
    assert draw(candidates, SPOConfig()).score.tolist() == pytest.approx([0.55, 0.35])


def test_a_draw_has_no_prompt_twice_and_is_repeatable() -> None:
    keys = [str(number) for number in range(50)]
    candidates = PromptCandidates(keys, 10, 3, SPOState())
    rows = draw(candidates, SPOConfig()).rows.tolist()
    assert len(set(rows)) == 10
    assert draw(candidates, SPOConfig()).rows.tolist() == rows
    other_step = PromptCandidates(keys, 10, 4, SPOState())
    assert draw(other_step, SPOConfig()).rows.tolist() != rows
    assert draw(candidates, SPOConfig(seed=1)).rows.tolist() != rows
    backwards = PromptCandidates(keys[::-1], 10, 3, SPOState())
    assert [49 - row for row in draw(backwards, SPOConfig()).rows.tolist()] == rows


def test_all_candidates_are_drawn_where_all_are_kept() -> None:
    assert sorted(weighted_draw(["a", "a", "b"], torch.ones(3), 3, seed=0, step=1).tolist()) == [0, 1, 2]


def test_the_first_draw_goes_by_the_weights() -> None:
    """1, 2 and 5 of 8: of 4000 draws about 500, 1000 and 2500, within 4 standard deviations."""
    weights = torch.tensor([1.0, 2.0, 5.0])
    first = Counter(int(weighted_draw("abc", weights, 1, seed=0, step=step)) for step in range(4000))
    for row, weight in enumerate(weights.tolist()):
        share = weight / 8
        assert abs(first[row] - 4000 * share) < 4 * math.sqrt(4000 * share * (1 - share))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("rho", bad) for bad in (-0.1, 1.1, "1", None)],
        *[("initial_alpha", bad) for bad in (0, -1.0, None)],
        *[("initial_beta", bad) for bad in (0, -1.0, None)],
        *[("exploration", bad) for bad in (0, -0.05, math.inf)],
        *[("keep_fraction", bad) for bad in (0, 1.1, None)],
        *[("seed", bad) for bad in (-1, 0.5, True)],
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.spo\.{key} .*{value!r}"):
        SPOConfig.from_mapping({key: value})


def test_what_takes_other_prompts_is_refused() -> None:
    settings = {
        "algorithm.filter_groups.enable": True,
        "trainer.v1.trainer_mode": "ispo_colocate_async",
        "actor_rollout_ref.rollout.multi_turn.enable": True,
    }
    assert {pair.second for pair in METHOD.contradictions(settings.get)} == set(settings)
    assert not list(METHOD.contradictions({"trainer.v1.trainer_mode": "ispo_sync"}.get))
