"""The advantages that are shown for a preset are those that a training would compute.

- verl's estimators that are repeated here give verl's numbers on the twenty batches.
- A method of the registry gives what its rule gives on the batch, with the settings of the preset.
- ISPO's presets give what the probe computes from the same log-probs.
- What a batch lacks is named, and nothing is computed from it.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from tests.methods.preset_settings import presets_with_reference
from tests.methods.twenty_batches import method_batches, prefix_scores
from tests.probe.made_batches import Made, batch_of
from verl_ispo.explained.preset_advantage import (
    VERLS_OWN,
    AnswerScores,
    KnownRollouts,
    preset_advantage,
    settings_of,
    what_is_missing,
)
from verl_ispo.method_presets import method_names, read_preset
from verl_ispo.methods.method import MethodBatch
from verl_ispo.probe.preset_advantages import PresetBatch, preset_rule, signal_presets
from verl_ispo.probe.scored_rollouts import ScoredRollouts

REGISTERED = presets_with_reference()


def known(batch: MethodBatch) -> KnownRollouts:
    def score_prefixes(method, settings):
        return prefix_scores(batch, lambda request: method.prefix_cuts.positions(request, settings))

    return KnownRollouts(batch, score_prefixes=score_prefixes)


@pytest.mark.parametrize("estimator", sorted(VERLS_OWN))
def test_verls_own_are_verls(estimator: str) -> None:
    for title, batch in method_batches().items():
        expected, _ = get_adv_estimator_fn(estimator)(
            token_level_rewards=batch.rewards.clone(),
            response_mask=batch.response_mask,
            index=np.array(batch.groups.ids.tolist()),
            config=SimpleNamespace(gamma=1.0),
        )
        found = VERLS_OWN[estimator](batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=title)


def test_a_preset_without_the_division_is_shown_without_it() -> None:
    batch = method_batches()["mixed"]
    found = preset_advantage(read_preset("dr_grpo"), known(batch))
    torch.testing.assert_close(found, method_batches(normalize_by_std=False)["mixed"].grpo_advantage.double())


@pytest.mark.parametrize("name", sorted(REGISTERED))
def test_a_method_of_the_registry_is_shown_as_it_is(name: str) -> None:
    preset = REGISTERED[name]
    for batch in method_batches(preset.normalize_by_std).values():
        settings = settings_of(read_preset(name), preset.method)
        expected = preset.method.advantage(preset.declared(preset.given(batch)), settings).double()
        expected = (expected.unsqueeze(-1) if expected.dim() == 1 else expected) * batch.response_mask
        found = preset_advantage(read_preset(name), known(replace(batch, grpo_advantage=None)))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


GROUPS = [
    [Made(True, -0.1, -0.9), Made(False, -0.2, -0.3), Made(False, answered=False), Made(True, -0.3, -0.4)],
    [Made(False, -0.1, -2.0, gain=0.5), Made(False, -0.4, -0.6), Made(False, -0.2, -0.3, gain=-2.0)],
    [Made(True, -0.1, -0.4), Made(True, -0.2, -1.4)],
]


def of_probe(scored: ScoredRollouts) -> KnownRollouts:
    mask = scored.response_mask
    last = mask.sum(dim=-1, keepdim=True) - 1
    batch = MethodBatch(
        rewards=torch.where(torch.arange(mask.shape[1]) == last, scored.score.unsqueeze(-1), 0.0),
        response_mask=mask.long(),
        groups=scored.groups,
        correct=scored.correct,
        log_prob=scored.log_prob,
        entropy=scored.entropy,
        ref_log_prob=scored.ref_log_prob,
    )
    answers = AnswerScores(
        scored.answer_log_prob,
        scored.ablated_answer_log_prob,
        scored.answer_mask,
        scored.outside_answer,
        scored.right_answer,
    )
    return KnownRollouts(batch, answers)


@pytest.mark.parametrize("name", [*signal_presets(), "grpo", "sign"])
def test_ispos_presets_are_shown_as_the_probe_shows_them(name: str) -> None:
    scored = batch_of(GROUPS, drift=0.5)
    under = PresetBatch(preset_rule(name, {}), scored)
    expected = under.advantage(under.reward()).double()
    found = preset_advantage(read_preset(name), of_probe(scored))
    torch.testing.assert_close(found, expected.unsqueeze(-1) * scored.response_mask, rtol=1e-5, atol=1e-6)


def test_what_is_missing_is_named() -> None:
    batch = method_batches()["mixed"]
    bare = KnownRollouts(replace(batch, entropy=None, prompt_log_prob=None, correct=None))
    assert what_is_missing(read_preset("grpo"), bare) == []
    assert what_is_missing(read_preset("gtpo"), bare) == ["the verifier's verdict", "the policy's entropy"]
    assert what_is_missing(read_preset("progrpo"), bare) == ["the verifier's verdict", "log-probs of the prompt"]
    assert what_is_missing(read_preset("ispo"), known(batch)) == ["ISPO's signals"]
    scored = of_probe(batch_of(GROUPS))
    without = replace(scored, answers=replace(scored.answers, right_answer=None))
    behind = ["log-probs of the ground truth behind parts of the response"]
    assert what_is_missing(read_preset("ispo_right_answer"), without) == behind
    assert what_is_missing(read_preset("ispo"), without) == []


@pytest.mark.parametrize("name", method_names())
def test_a_full_batch_lacks_nothing(name: str) -> None:
    scored = of_probe(batch_of(GROUPS))
    missing = what_is_missing(
        read_preset(name), KnownRollouts(method_batches()["mixed"], scored.answers, lambda *_: None)
    )
    assert missing == []
