"""ISPO in float64 and plain Python loops, written from the method's definition and from nothing else.

One rollout is one `Rollout`, without padding; one function is one sentence of the method. Slow on purpose: nothing
here is vectorized, masked or clever. What the paper leaves open follows the project's decisions: a missing answer has
IFD 0, the entropy filter keeps ceil(k * tokens) with ties by position, correctness is not the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from verl_ispo import ISPOConfig


@dataclass(frozen=True)
class Rollout:
    """One rollout; all fields but `group` and `token_ids` enter the maths.

    Attributes:
        group: label of its prompt.
        score: outcome as the scorer gave it.
        correct: the verifier's verdict.
        token_ids: the response.
        written: whether the policy wrote each token (a tool's output is in the response too, but not the policy's).
        log_prob, ref_log_prob, entropy: one value per token.
        lead_in_start, answer_start, answer_end: token indices; all 0 without an answer.
        ablated: log-probs of the answer's tokens without the trace.
        candidate: whether the entropy filter may choose the token, where the answer is excluded.
        right_given, right_ablated: log-probs of the correct answer's tokens behind the rollout's lead-in, with the
            trace and without it; empty where it was not scored.
    """

    group: str
    score: float
    correct: bool
    token_ids: tuple[int, ...]
    written: tuple[bool, ...]
    log_prob: tuple[float, ...]
    ref_log_prob: tuple[float, ...]
    entropy: tuple[float, ...]
    lead_in_start: int
    answer_start: int
    answer_end: int
    ablated: tuple[float, ...]
    candidate: tuple[bool, ...]
    right_given: tuple[float, ...] = ()
    right_ablated: tuple[float, ...] = ()

    @property
    def answered(self) -> bool:
        return self.answer_end > self.answer_start

    @property
    def given_trace(self) -> tuple[float, ...]:
        """Log-probs of the answer's tokens in the rollout itself."""
        return self.log_prob[self.answer_start : self.answer_end]


@dataclass(frozen=True)
class ReferenceReward:
    """What the method says of one rollout; `ifd` is what enters the reward, `measured_ifd` what was found."""

    measured_ifd: float
    ifd: float
    entropy_positions: frozenset[int]
    drift_positions: frozenset[int]
    critical_positions: frozenset[int]
    token_reward: float
    total: float


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def sample_std(values: Sequence[float]) -> float:
    """With n - 1, as verl's GRPO."""
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def ifd(rollout: Rollout, config: ISPOConfig) -> float:
    """(1/|A|) [log p(A|Q,T) - log p(A|Q)]; 0 without an answer; clipped where the guard is set."""
    if not rollout.answered:
        return 0.0
    given_trace, ablated = math.fsum(rollout.given_trace), math.fsum(rollout.ablated)
    value = (given_trace - ablated) / (rollout.answer_end - rollout.answer_start)
    if config.max_abs_ifd is not None:
        value = max(-config.max_abs_ifd, min(config.max_abs_ifd, value))
    return value


def right_answer_gain(rollout: Rollout) -> float:
    """(1/|A*|) [log p(A*|Q,T,lead-in) - log p(A*|Q,lead-in)] of a rollout that was scored."""
    return (math.fsum(rollout.right_given) - math.fsum(rollout.right_ablated)) / len(rollout.right_given)


def bounded_gain(rollout: Rollout, config: ISPOConfig) -> float:
    """The gain, clipped as IFD is, and then from below where there is a bound."""
    value = right_answer_gain(rollout)
    if config.max_abs_ifd is not None:
        value = max(-config.max_abs_ifd, min(config.max_abs_ifd, value))
    return value if config.min_right_answer_gain is None else max(config.min_right_answer_gain, value)


def entropy_positions(rollout: Rollout, config: ISPOConfig) -> frozenset[int]:
    """The top k% of the response's tokens by entropy, ceil(k * tokens) of them, the earlier of equals first.

    With `exclude_answer_from_critical` the answer and the end of sequence are no tokens for this filter, neither
    chosen nor counted. (That the count shrinks too is one of two readings of the key's description.)
    """
    tokens = [
        position
        for position, written in enumerate(rollout.written)
        if written and (rollout.candidate[position] or not config.exclude_answer_from_critical)
    ]
    count = math.ceil(Fraction(repr(config.top_entropy_fraction)) * len(tokens))  # of the decimal that the user wrote
    by_entropy = sorted(tokens, key=lambda position: (-rollout.entropy[position], position))
    return frozenset(by_entropy[:count])


def drift_positions(rollout: Rollout, config: ISPOConfig) -> frozenset[int]:
    """Where log p(y_t) - log p_0(y_t) >= tau_drift; one-sided."""
    return frozenset(
        position
        for position, written in enumerate(rollout.written)
        if written and rollout.log_prob[position] - rollout.ref_log_prob[position] >= config.drift_threshold
    )


def critical_positions(entropy: frozenset[int], drift: frozenset[int], selection: str) -> frozenset[int]:
    return {"intersection": entropy & drift, "union": entropy | drift, "entropy": entropy, "drift": drift}[selection]


def token_reward(rollout: Rollout, critical: frozenset[int], config: ISPOConfig) -> float:
    """Correct: mean log p. Incorrect: mean of alpha * H - beta * max(0, tau_H - H). No critical token: 0.

    The symmetric ablation has no formula in the paper; the project's is minus what a correct rollout would get.
    """
    if not critical:
        return 0.0
    confidence = mean([rollout.log_prob[position] for position in critical])
    if rollout.correct:
        return confidence
    if config.symmetric_token_reward:
        return -confidence
    return mean(
        [
            config.entropy_bonus * rollout.entropy[position]
            - config.hinge_weight * max(0.0, config.entropy_floor - rollout.entropy[position])
            for position in critical
        ]
    )


# Means of Conditional IFD over the steps before, of correct and incorrect rollouts; None where nothing is known.
Means = tuple[float | None, float | None]
UNKNOWN: Means = (None, None)


def adjusted(value: float, rollout: Rollout, config: ISPOConfig, means: Means) -> float:
    """Centred on the mean of its outcome, or capped at the mean of correct rollouts."""
    right, wrong = means
    mean_of_outcome = right if rollout.correct else wrong
    if config.ifd_reference == "running_mean" and rollout.answered and mean_of_outcome is not None:
        return value - mean_of_outcome
    if config.ifd_reference == "right_rollouts" and right is not None:
        return min(value, right)
    return value


def reference_reward(rollout: Rollout, config: ISPOConfig, means: Means = UNKNOWN) -> ReferenceReward:
    """score + lambda1 * (2 correct - 1) * IFD + lambda2 * R_token."""
    entropy, drift = entropy_positions(rollout, config), drift_positions(rollout, config)
    critical = critical_positions(entropy, drift, config.critical_selection)
    measured, token = ifd(rollout, config), token_reward(rollout, critical, config)
    sequence = adjusted(measured, rollout, config, means)
    sign = 1 if rollout.correct else -1
    total = rollout.score + config.ifd_weight * sign * sequence + config.token_weight * token
    return ReferenceReward(measured, sequence, entropy, drift, critical, token, total)


def members(rollouts: Sequence[Rollout]) -> list[list[int]]:
    """Rows of each group."""
    groups: dict[str, list[int]] = {}
    for row, rollout in enumerate(rollouts):
        groups.setdefault(rollout.group, []).append(row)
    return list(groups.values())


@dataclass(frozen=True)
class ReferenceParts:
    """The terms that add up to a guarded composite."""

    outcome: float
    ifd: float
    token: float
    missing_answer: float = 0.0

    @property
    def total(self) -> float:
        return self.outcome + self.ifd + self.token + self.missing_answer


def reference_guarded(rollouts: Sequence[Rollout], config: ISPOConfig, means: Means = UNKNOWN) -> list[ReferenceParts]:
    """The composite's parts with the guards on same-outcome groups, then the one on missing answers."""
    guarded = [ReferenceParts(0, 0, 0)] * len(rollouts)
    for rows in members(rollouts):
        verdicts = {rollouts[row].correct for row in rows}
        mode = "paper"
        if verdicts == {False}:
            mode = config.all_wrong_groups
        elif verdicts == {True}:
            mode = config.all_right_groups
        gains = [bounded_gain(rollouts[row], config) for row in rows if rollouts[row].right_given]
        for row in rows:
            rollout, reward = rollouts[row], reference_reward(rollouts[row], config, means)
            sign = 1 if rollout.correct or mode == "informative" else -1
            sequence = sign * reward.ifd
            if mode in ("off", "token_only"):
                sequence = 0.0
            if mode == "right_answer":  # not scored: as the least of the group, 0 if it has none
                sequence = bounded_gain(rollout, config) if rollout.right_given else min(gains, default=0.0)
            guarded[row] = ReferenceParts(
                outcome=rollout.score,
                ifd=config.ifd_weight * sequence,
                token=0.0 if mode == "off" else config.token_weight * reward.token_reward,
            )
        if config.missing_answer == "group_min" or (mode == "right_answer" and config.ifd_weight > 0):
            lowest = min(guarded[row].total for row in rows)
            for row in rows:
                if not rollouts[row].answered:
                    guarded[row] = replace(guarded[row], missing_answer=lowest - guarded[row].total)
    return guarded


def reference_advantage(
    rewards: Sequence[float],
    rollouts: Sequence[Rollout],
    normalize_by_std: bool,
    min_group_std: float,
    same_outcome_std: str = "own",
) -> list[float]:
    """(R - mean) / (max(std, floor) + 1e-6) in each group; a group of one keeps its reward, as in verl's GRPO.

    With `one_success` the std of a group of one outcome is that of the outcomes 1, 0, 0, ... of as many rollouts.
    """
    advantages = [0.0] * len(rewards)
    for rows in members(rollouts):
        values = [rewards[row] for row in rows]
        centre, std = 0.0, 1.0
        if len(rows) > 1:
            centre, std = mean(values), sample_std(values)
            if same_outcome_std == "one_success" and len({rollouts[row].correct for row in rows}) == 1:
                std = sample_std([1.0] + [0.0] * (len(rows) - 1))
            std = max(std, min_group_std)
        for row in rows:
            advantages[row] = rewards[row] - centre
            if normalize_by_std:
                advantages[row] /= std + 1e-6
    return advantages
