"""Every metric of `signal_metrics` and `advantage_metrics` against a loop over rollouts, on random batches.

Definitions follow the method's list: rates are over rollouts, groups or tokens as their names say; what has no member
on a batch is left out rather than reported as 0. Where the list leaves a choice, the choice is stated in the loop
below.

Not exercised: the trainer's timing metrics, and who logs what.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from tests.examples import examples
from tests.signals.loop_reference import (
    Rollout,
    mean,
    members,
    reference_guarded,
    reference_reward,
    right_answer_gain,
    sample_std,
)
from tests.signals.rollout_batches import (
    batches,
    configs,
    library_reward,
    padded,
    reward_inputs,
    right_answer_scores,
    scored_answers,
)
from verl_ispo import ISPOConfig
from verl_ispo.method_presets import method_names, read_preset
from verl_ispo.signals.answer_span import AnswerSpans, ScoredAnswers
from verl_ispo.signals.diagnostics import (
    NEAR_EMPTY_TRACE_TOKENS,
    ObservedBatch,
    advantage_metrics,
    order_violation_rate,
    signal_metrics,
)
from verl_ispo.signals.groups import RolloutGroups, guarded_reward


def observe(batch: list[Rollout], config: ISPOConfig) -> ObservedBatch:
    inputs = reward_inputs(batch)
    groups = RolloutGroups.from_labels([rollout.group for rollout in batch])
    right_answer = right_answer_scores(batch)
    reward = guarded_reward(library_reward(batch, config), inputs["correct"], groups, config, right_answer)
    return ObservedBatch(
        reward=reward,
        training_reward=reward.total,
        correct=inputs["correct"],
        groups=groups,
        answers=scored_answers(batch),
        response_ids=padded([rollout.token_ids for rollout in batch], inputs["log_prob"].shape[1]).long(),
        response_mask=inputs["response_mask"],
        entropy=inputs["entropy"],
        answer_log_prob=inputs["answer_log_prob"],
        ablated_answer_log_prob=inputs["ablated_answer_log_prob"],
        answer_mask=inputs["answer_mask"],
        right_answer=right_answer if config.all_wrong_groups == "right_answer" else None,
    )


def expected_metrics(batch: list[Rollout], config: ISPOConfig) -> dict[str, float]:
    values: dict[str, list[float]] = {}

    def collect(name: str, found: list[float]) -> None:
        values[f"ispo/{name}"] = found

    rewards = [reference_reward(rollout, config) for rollout in batch]
    guarded = reference_guarded(batch, config)
    answered = [rollout for rollout in batch if rollout.answered]
    collect("answer_missing_rate", [float(not rollout.answered) for rollout in batch])
    # A dropped trace: there is an answer, and at most a handful of tokens before its lead-in.
    collect(
        "trace_dropped_rate",
        [float(rollout.answered and rollout.lead_in_start <= NEAR_EMPTY_TRACE_TOKENS) for rollout in batch],
    )
    collect("trace_length", [rollout.lead_in_start for rollout in answered])

    # Groups of one have no spread to lose: they count in no rate over groups.
    several = [rows for rows in members(batch) if len(rows) > 1]
    flat = [rows for rows in several if len({batch[row].score for row in rows}) == 1]
    collect("zero_adv_rate/outcome", [float(rows in flat) for rows in several])
    # The spread of the composite is the library's, since a loop in float64 rounds differently from float32.
    training_reward = observe(batch, config).training_reward.tolist()
    collect("zero_adv_rate/composite", [float(len({training_reward[row] for row in rows}) == 1) for rows in several])
    written_ids = [tuple(zip(rollout.token_ids, rollout.written, strict=True)) for rollout in batch]
    collect("identical_group_rate", [float(len({visible(written_ids[row]) for row in rows}) == 1) for rows in several])
    collect("ifd_std_in_zero_adv_groups", [sample_std([rewards[row].ifd for row in rows]) for rows in flat])

    violations = [
        float(training_reward[wrong] > training_reward[right])
        for rows in several
        for right in rows
        for wrong in rows
        if batch[right].correct and not batch[wrong].correct
    ]
    collect("order_violation_rate", violations)

    tokens = [(row, position) for row, rollout in enumerate(batch) for position, w in enumerate(rollout.written) if w]
    collect(
        "critical_fraction/entropy", [float(position in rewards[row].entropy_positions) for row, position in tokens]
    )
    collect("critical_fraction/drift", [float(position in rewards[row].drift_positions) for row, position in tokens])
    both = [
        float(position in rewards[row].entropy_positions & rewards[row].drift_positions) for row, position in tokens
    ]
    collect("critical_fraction/both", both)
    collect(
        "hinge_active_rate",
        [
            float(rollout.entropy[position] < config.entropy_floor)
            for rollout, reward in zip(batch, rewards, strict=True)
            for position in reward.critical_positions
            if not rollout.correct
        ],
    )
    for name, verdict in (("correct", True), ("wrong", False)):
        rows = [row for row, rollout in enumerate(batch) if rollout.correct == verdict]
        collect(f"critical_entropy/{name}", [batch[r].entropy[p] for r in rows for p in rewards[r].critical_positions])
        collect(
            f"entropy_filter_entropy/{name}", [batch[r].entropy[p] for r in rows for p in rewards[r].entropy_positions]
        )
        with_answer = [row for row in rows if batch[row].answered]
        collect(f"ifd/{name}/mean", [rewards[row].ifd for row in with_answer])
        collect(f"answer_length/{name}", [batch[row].answer_end - batch[row].answer_start for row in with_answer])
        collect(f"answer_log_prob/given_trace/{name}", [v for row in with_answer for v in batch[row].given_trace])
        collect(f"answer_log_prob/ablated/{name}", [v for row in with_answer for v in batch[row].ablated])

    parts = {
        "outcome": [one.outcome for one in guarded],
        "ifd": [one.ifd for one in guarded],
        "token": [one.token for one in guarded],
        "composite": [one.total for one in guarded],
    }
    if config.missing_answer == "group_min" or config.all_wrong_groups == "right_answer":
        parts["missing_answer"] = [one.missing_answer for one in guarded]
    for name, part in parts.items():
        collect(f"reward/{name}/mean", part)
    gains = [right_answer_gain(rollout) for rollout in batch if rollout.right_given]
    if config.all_wrong_groups == "right_answer":
        collect("right_answer_gain/mean", gains)
        collect("right_answer_raised_rate", [gain > 0 for gain in gains])
        collect("right_answer_log_prob/given_trace", [value for rollout in batch for value in rollout.right_given])
        collect("right_answer_log_prob/ablated", [value for rollout in batch for value in rollout.right_ablated])
        all_wrong = [rows for rows in members(batch) if not any(batch[row].correct for row in rows)]
        collect("right_answer_served_rate", [any(batch[r].right_given for r in rows) for rows in all_wrong])
        collect("right_answer_too_long_rate", [0.0 for _ in all_wrong])
    metrics = {name: mean(found) for name, found in values.items() if found}
    if config.all_wrong_groups == "right_answer" and len(gains) > 1:
        metrics["ispo/right_answer_gain/std"] = sample_std(gains)
    for name, part in parts.items():
        if len(part) > 1:
            metrics[f"ispo/reward/{name}/std"] = sample_std(part)
    for name in ("correct", "wrong"):
        if len(values[f"ispo/ifd/{name}/mean"]) > 1:
            metrics[f"ispo/ifd/{name}/std"] = sample_std(values[f"ispo/ifd/{name}/mean"])
    return metrics


def visible(tokens: tuple[tuple[int, bool], ...]) -> tuple[tuple[int, int], ...]:
    """What the policy wrote, and where."""
    return tuple((position, token) for position, (token, written) in enumerate(tokens) if written)


@given(batches(groups=3), configs())
@settings(max_examples=examples(150))
def test_signal_metrics(batch: list[Rollout], config: ISPOConfig) -> None:
    metrics, expected = signal_metrics(observe(batch, config), config), expected_metrics(batch, config)
    assert sorted(metrics) == sorted(expected)
    assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-5)


def ispo_settings(preset: str) -> dict[str, Any]:
    """What a method preset sets under ``algorithm.ispo``."""
    section = "algorithm.ispo."
    changes = read_preset(preset).changes
    return {key.removeprefix(section): value for key, value in changes.items() if key.startswith(section)}


@pytest.mark.parametrize("preset", [*method_names(), "missing_answer=group_min"])
@given(batch=batches(groups=3))
@settings(max_examples=15, deadline=None)
def test_the_logged_parts_add_up_to_the_logged_composite(preset: str, batch: list[Rollout]) -> None:
    """Guards included, rollout by rollout and in the means; also where another method trains on the score alone."""
    config = ISPOConfig(missing_answer="group_min") if "=" in preset else ISPOConfig(**ispo_settings(preset))
    observed = observe(batch, config)
    parts = observed.reward.parts
    together = parts.outcome + parts.ifd + parts.token + parts.missing_answer
    assert together.tolist() == pytest.approx(observed.reward.total.tolist(), abs=1e-5)

    metrics = signal_metrics(observed, config)
    names = ("outcome", "ifd", "token", "missing_answer")
    means = [metrics.get(f"ispo/reward/{name}/mean", 0.0) for name in names]
    assert sum(means) == pytest.approx(metrics["ispo/reward/composite/mean"], abs=1e-5)


@given(batches(groups=3))
@settings(max_examples=examples(75))
def test_the_trace_is_what_was_written_whatever_is_scored(batch: list[Rollout]) -> None:
    """Otherwise a run with another A or T seems to drop its traces; the answer's length is that of A."""
    observed = observe(batch, ISPOConfig())
    content = observed.answers.content
    # As with a sentence that begins at half of the trace, and a T that ends at a third of it.
    start = torch.where(content.found, content.lead_in_start // 2, 0)
    answers = ScoredAnswers(content, AnswerSpans(start, start, content.end), content.lead_in_start // 3)
    before = signal_metrics(observed, ISPOConfig())
    after = signal_metrics(replace(observed, answers=answers), ISPOConfig(trace_end="first_statement"))
    answered = [row for row, rollout in enumerate(batch) if rollout.answered]
    traces = [batch[row].lead_in_start for row in answered]
    expected = {}
    if answered:
        expected["ispo/answer_stated_rate"] = mean([float(length // 3 < length // 2) for length in traces])
        expected["ispo/trace_length_to_statement"] = mean([length // 3 for length in traces])
    for name, verdict in (("correct", True), ("wrong", False)):
        lengths = [
            batch[row].answer_end - batch[row].lead_in_start // 2 for row in answered if batch[row].correct == verdict
        ]
        if lengths:
            expected[f"ispo/answer_length/{name}"] = mean(lengths)
    assert after == pytest.approx(before | expected)


@given(batches(groups=3), configs())
@settings(max_examples=examples(75))
def test_advantage_metrics(batch: list[Rollout], config: ISPOConfig) -> None:
    """Shares of the absolute advantage add up to 1; the mean advantage of rollouts without an answer, and with one."""
    advantage = [((7 * row) % 5 - 2) / 2 for row in range(len(batch))]
    shares = {"all_wrong": 0.0, "mixed": 0.0, "all_right": 0.0}
    for rows in members(batch):
        verdicts = {batch[row].correct for row in rows}
        kind = "mixed" if len(verdicts) == 2 else "all_right" if verdicts == {True} else "all_wrong"
        shares[kind] += sum(abs(advantage[row]) for row in rows)
    total = sum(shares.values())
    expected = {f"ispo/advantage_share/{kind}": share / total for kind, share in shares.items()} if total else {}
    unanswered = [advantage[row] for row, rollout in enumerate(batch) if not rollout.answered]
    if unanswered:
        expected["ispo/missing_answer_advantage"] = mean(unanswered)
    hopeless = [row for rows in members(batch) if not any(batch[row].correct for row in rows) for row in rows]
    for name, answered in (("missing", False), ("answered", True)):
        found = [advantage[row] for row in hopeless if batch[row].answered is answered]
        if found:
            expected[f"ispo/all_wrong_advantage/{name}"] = mean(found)
    assert advantage_metrics(torch.tensor(advantage), observe(batch, config)) == pytest.approx(expected, abs=1e-6)


def test_order_violation_counts_pairs_inside_groups_only() -> None:
    """Group a: correct 1.0, incorrect 0.5 and 1.5: one violation of two. Group b: a tie is none. Not across groups."""
    reward = torch.tensor([1.0, 0.5, 1.5, 2.0, 2.0])
    correct = torch.tensor([True, False, False, True, False])
    groups = RolloutGroups.from_labels(["a", "a", "a", "b", "b"])
    assert order_violation_rate(reward, correct, groups) == pytest.approx(1 / 3)


def test_order_violation_is_undefined_without_a_pair() -> None:
    groups = RolloutGroups.from_labels(["a", "a", "b"])
    assert order_violation_rate(torch.ones(3), torch.tensor([True, True, False]), groups) is None
    empty = RolloutGroups.from_labels([])
    assert order_violation_rate(torch.zeros(0), torch.zeros(0, dtype=torch.bool), empty) is None


def test_zero_advantage_collapse_is_seen_by_outcome_and_cured_by_the_composite() -> None:
    """Two incorrect rollouts: their outcomes are equal, their IFDs are not."""
    config = ISPOConfig()
    batch = [
        Rollout("q", 0.0, False, (row,), (True,), (-1.0,), (-1.0,), (1.0,), 0, 0, 1, (-2.0 - row,), (True,))
        for row in range(2)
    ]
    metrics = signal_metrics(observe(batch, config), config)
    assert metrics["ispo/zero_adv_rate/outcome"] == 1
    assert metrics["ispo/zero_adv_rate/composite"] == 0
    assert metrics["ispo/ifd_std_in_zero_adv_groups"] == pytest.approx(0.5**0.5)
