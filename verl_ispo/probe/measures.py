"""What the probe measures on a batch of scored rollouts: pure functions of numbers, defined in docs/probe.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from scipy import stats

from verl_ispo.evaluation.statistics import CONFIDENCE_LEVEL, mean_interval
from verl_ispo.probe.preset_advantages import PresetBatch, PresetRule
from verl_ispo.probe.scored_rollouts import ScoredRollouts
from verl_ispo.signals.diagnostics import (
    NEAR_EMPTY_TRACE_TOKENS,
    advantage_metrics,
    order_violation_rate,
    signal_metrics,
)
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.masked import masked_row_mean

KINDS = ("mixed", "all_wrong", "all_right")
QUANTILES = (5, 25, 50, 75, 95)
PRIOR_TOLERANCE = 0.1
"""IFD is within this share of -log p(A | Q) where log p(A | Q, T) is at most this share of log p(A | Q)."""


@dataclass(frozen=True)
class Distribution:
    """Some numbers in few: how many, mean, standard deviation, and quantiles by per cent."""

    count: int
    mean: float | None
    std: float | None
    quantiles: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """What the composite reward differs by inside groups of one kind, under `ispo`.

    Attributes:
        groups: of this kind.
        std: of the composite inside a group, root mean square over the groups; what an advantage is divided by.
        parts: of each part of eq. 8, the same.
        shares: of each part, its covariance with the composite over the composite's variance; they add up to 1.
    """

    groups: int
    std: float | None
    parts: Mapping[str, float]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Paid:
    """Mean advantage of some rollouts; `None` where there are none."""

    count: int
    mean: float | None


@dataclass(frozen=True)
class PresetMeasures:
    """What one rule makes of the batch; all advantages are per rollout.

    Attributes:
        presets: that have this rule, or do the same on this batch.
        mean_size: mean absolute advantage, by which the thresholds are scaled.
        everywhere: mean advantage by event, over all groups.
        all_wrong: the same in groups without a correct rollout.
        if_unanswered: what an incorrect answered rollout would get if it alone gave no answer, by group kind.
        if_without_trace: the same if it alone gave its answer without a trace.
        advantage_share: of the absolute advantage, by group kind.
        zero_advantage_rate: share of groups in which no rollout has an advantage.
        order_violation_rate: share of pairs of a correct and an incorrect rollout of a group that the reward inverts.
        ifd_counts_in_all_wrong: whether IFD is a part of the reward in groups without a correct rollout.
    """

    presets: Sequence[str]
    mean_size: float
    everywhere: Mapping[str, Paid]
    all_wrong: Mapping[str, Paid]
    if_unanswered: Mapping[str, float | None]
    if_without_trace: Mapping[str, float | None]
    advantage_share: Mapping[str, float | None]
    zero_advantage_rate: float
    order_violation_rate: float | None
    ifd_counts_in_all_wrong: bool

    @property
    def name(self) -> str:
        """The first preset of this rule."""
        return self.presets[0]


@dataclass(frozen=True)
class ProbeMeasures:
    """Everything that the rules and the page read; a number that is undefined on the batch is `None`.

    Attributes:
        prompts, rollouts: counts.
        pass_at_1: mean over prompts of the share of correct rollouts.
        group_counts: groups by kind.
        group_shares: the same as shares.
        intervals: 95 % intervals over prompts, of ``pass_at_1`` and the shares by kind; `None` where there is none.
        missing: share of rollouts without an answer.
        cut: share of rollouts that the length limit ended.
        missing_of_cut, cut_of_missing: of the cut ones, how many have no answer, and the other way round.
        trace_dropped: share of rollouts with an answer and a trace of at most `NEAR_EMPTY_TRACE_TOKENS` tokens.
        copied_of_wrong: of the incorrect answers, how many are a number of the question.
        states_answer: of the answers, for how many the trace holds the answer already.
        ifd: by outcome.
        given_trace, ablated: log p(A | Q, T) and log p(A | Q) by outcome, nats per answer token, mean over rollouts.
        answer_probability_given_trace: median over answers of p(A | Q, T), the whole answer.
        prior_like: share of the answers whose IFD is within a tenth of -log p(A | Q), since they are as good as certain
            given their traces.
        weighted_ifd: lambda_1 times the mean absolute IFD, in units of reward.
        drifted: share of tokens in the drift filter; 0 where the reference is the model itself.
        spreads: by group kind, under `ispo`.
        presets: one per rule; rules that do the same on this batch are one. `ispo` is among them.
        metrics: what a training with `ispo` would log of this batch.
    """

    prompts: int
    rollouts: int
    pass_at_1: float
    group_counts: Mapping[str, int]
    group_shares: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float] | None]
    missing: float
    cut: float
    missing_of_cut: float | None
    cut_of_missing: float | None
    trace_dropped: float
    copied_of_wrong: float | None
    states_answer: float | None
    ifd: Mapping[str, Distribution]
    given_trace: Mapping[str, float | None]
    ablated: Mapping[str, float | None]
    answer_probability_given_trace: float | None
    prior_like: float | None
    weighted_ifd: float | None
    drifted: float
    spreads: Mapping[str, Spread]
    presets: Sequence[PresetMeasures]
    metrics: Mapping[str, float]

    def preset(self, name: str) -> PresetMeasures:
        """The measures of one preset."""
        return next(one for one in self.presets if name in one.presets)


def kinds_of(groups: RolloutGroups, correct: torch.Tensor) -> dict[str, torch.Tensor]:
    """Groups of each kind, `(groups,)` bool."""
    all_wrong, all_right = groups.all_wrong(correct), groups.all_right(correct)
    return {"mixed": ~all_wrong & ~all_right, "all_wrong": all_wrong, "all_right": all_right}


def events_of(rollouts: ScoredRollouts) -> dict[str, torch.Tensor]:
    """Rollouts by what they did, `(batch,)` bool; they overlap."""
    found, correct = rollouts.spans.found, rollouts.correct
    dropped = found & (rollouts.spans.lead_in_start <= NEAR_EMPTY_TRACE_TOKENS)
    return {
        "correct": correct,
        "incorrect_answer": ~correct & found,
        "missing": ~found,
        "copied": ~correct & found & rollouts.copied,
        "without_trace": ~correct & dropped,
        "cut": rollouts.cut,
    }


def measure(rollouts: ScoredRollouts, rules: Mapping[PresetRule, Sequence[str]]) -> ProbeMeasures:
    """Measure one batch.

    Args:
        rollouts (`ScoredRollouts`).
        rules (`Mapping`): the rules to compare, with the presets of each; the preset `ispo` is among them.
    """
    groups, correct, found = rollouts.groups, rollouts.correct, rollouts.spans.found
    kinds, events = kinds_of(groups, correct), events_of(rollouts)
    solved = groups.reduce(correct.float(), "mean")
    batches = {tuple(names): PresetBatch(rule, rollouts) for rule, names in rules.items()}
    paper = next(batch for names, batch in batches.items() if "ispo" in names)
    observed = paper.observed
    ifd = observed.reward.measured_ifd
    given = masked_row_mean(rollouts.answer_log_prob, rollouts.answer_mask)
    ablated = masked_row_mean(rollouts.ablated_answer_log_prob, rollouts.answer_mask)
    outcomes = {"correct": correct & found, "wrong": ~correct & found}
    whole_answer = torch.where(rollouts.answer_mask, rollouts.answer_log_prob, 0).sum(dim=-1)
    dropped = found & (rollouts.spans.lead_in_start <= NEAR_EMPTY_TRACE_TOKENS)
    ifd_weight = paper.rule.config.ifd_weight
    written = rollouts.response_mask.sum().clamp(min=1)
    parts = {
        "outcome": observed.reward.parts.outcome,
        "ifd": observed.reward.parts.ifd,
        "token": observed.reward.parts.token,
        "missing_answer": observed.reward.parts.missing_answer,
    }
    if not parts["missing_answer"].any():
        del parts["missing_answer"]
    return ProbeMeasures(
        prompts=groups.count,
        rollouts=len(correct),
        pass_at_1=float(solved.mean()),
        group_counts={kind: int(mask.sum()) for kind, mask in kinds.items()},
        group_shares={kind: float(mask.float().mean()) for kind, mask in kinds.items()},
        intervals=_intervals(solved, kinds),
        missing=_share(~found),
        cut=_share(rollouts.cut),
        missing_of_cut=_mean((~found)[rollouts.cut]),
        cut_of_missing=_mean(rollouts.cut[~found]),
        trace_dropped=_share(dropped),
        copied_of_wrong=_mean(rollouts.copied[events["incorrect_answer"]]),
        states_answer=_mean(rollouts.trace_states_answer[found]),
        ifd={name: distribution(ifd[rows]) for name, rows in outcomes.items()},
        given_trace={name: _mean(given[rows]) for name, rows in outcomes.items()},
        ablated={name: _mean(ablated[rows]) for name, rows in outcomes.items()},
        answer_probability_given_trace=float(whole_answer[found].exp().median()) if found.any() else None,
        prior_like=_mean(given[found].abs() <= PRIOR_TOLERANCE * ablated[found].abs()),
        weighted_ifd=ifd_weight * float(ifd[found].abs().mean()) if found.any() else None,
        drifted=float((observed.reward.drift_mask & rollouts.response_mask).sum() / written),
        spreads={
            kind: _spread(int(mask.sum()), mask[groups.ids], groups.ids, parts, observed.reward.total)
            for kind, mask in kinds.items()
        },
        presets=_merged([_measure_preset(names, batch, kinds, events) for names, batch in batches.items()]),
        metrics={
            **signal_metrics(observed, paper.rule.config),
            **advantage_metrics(paper.advantage(observed.reward), observed),
        },
    )


def _intervals(solved: torch.Tensor, kinds: Mapping[str, torch.Tensor]) -> dict[str, tuple[float, float] | None]:
    """Of the mean over prompts as everywhere in the evaluation; of the shares the exact binomial interval."""
    mean = mean_interval(solved.double().clamp(0, 1).numpy())
    intervals: dict[str, tuple[float, float] | None] = {"pass_at_1": None if mean is None else (mean.low, mean.high)}
    for kind, mask in kinds.items():
        exact = stats.binomtest(int(mask.sum()), mask.numel()).proportion_ci(CONFIDENCE_LEVEL, "exact")
        intervals[kind] = (float(exact.low), float(exact.high))
    return intervals


def distribution(values: torch.Tensor) -> Distribution:
    """Mean, standard deviation and quantiles of `(count,)` values."""
    if not values.numel():
        return Distribution(0, None, None, {})
    values = values.double()
    found = torch.quantile(values, torch.tensor(QUANTILES, dtype=torch.float64) / 100)
    return Distribution(
        count=values.numel(),
        mean=float(values.mean()),
        std=float(values.std()) if values.numel() > 1 else None,
        quantiles={str(percent): float(value) for percent, value in zip(QUANTILES, found, strict=True)},
    )


def _measure_preset(
    names: Sequence[str],
    batch: PresetBatch,
    kinds: Mapping[str, torch.Tensor],
    events: Mapping[str, torch.Tensor],
) -> PresetMeasures:
    rollouts, observed, config = batch.rollouts, batch.observed, batch.rule.config
    groups = rollouts.groups
    advantage = batch.advantage(observed.reward)
    rows_of = {kind: mask[groups.ids] for kind, mask in kinds.items()}
    shares = advantage_metrics(advantage, observed)
    unanswered, without_trace = (batch.if_one_changed(answer_is_there) for answer_is_there in (False, True))

    def by_kind(values: torch.Tensor) -> dict[str, float | None]:
        known = ~values.isnan()
        return {kind: _mean(values[known & rows]) for kind, rows in rows_of.items()}

    return PresetMeasures(
        presets=names,
        mean_size=float(advantage.abs().mean()),
        everywhere={event: _paid(advantage, rows) for event, rows in events.items()},
        all_wrong={event: _paid(advantage, rows & rows_of["all_wrong"]) for event, rows in events.items()},
        if_unanswered=by_kind(unanswered),
        if_without_trace=by_kind(without_trace),
        advantage_share={kind: shares.get(f"ispo/advantage_share/{kind}") for kind in KINDS},
        zero_advantage_rate=float((groups.reduce(advantage.abs(), "amax") == 0).float().mean()),
        order_violation_rate=order_violation_rate(observed.training_reward, rollouts.correct, groups),
        ifd_counts_in_all_wrong=batch.rule.uses_signals
        and config.ifd_weight > 0
        and config.all_wrong_groups in ("paper", "informative"),
    )


def _merged(measured: Sequence[PresetMeasures]) -> list[PresetMeasures]:
    """Rules that do the same on this batch, as one with the presets of all."""
    merged: list[PresetMeasures] = []
    for one in measured:
        at = next((index for index, other in enumerate(merged) if replace(other, presets=one.presets) == one), None)
        if at is None:
            merged.append(one)
        else:
            merged[at] = replace(one, presets=(*merged[at].presets, *one.presets))
    return merged


def _paid(advantage: torch.Tensor, rows: torch.Tensor) -> Paid:
    return Paid(int(rows.sum()), _mean(advantage[rows]))


def _spread(
    count: int, rows: torch.Tensor, ids: torch.Tensor, parts: Mapping[str, torch.Tensor], total: torch.Tensor
) -> Spread:
    if not rows.any():
        return Spread(0, None, {}, {})
    own = ids[rows]
    centred = {name: _centred(part[rows].double(), own) for name, part in parts.items()}
    whole = _centred(total[rows].double(), own)
    freedom = max(1, len(own) - len(own.unique()))
    variance = float((whole**2).sum())

    def std(values: torch.Tensor) -> float:
        return (float((values**2).sum()) / freedom) ** 0.5

    return Spread(
        groups=count,
        std=std(whole),
        parts={name: std(part) for name, part in centred.items()},
        shares={name: float((part * whole).sum()) / variance for name, part in centred.items()} if variance else {},
    )


def _centred(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    groups = RolloutGroups.from_labels(ids.tolist())
    return values - groups.reduce(values, "mean")[groups.ids]


def _share(mask: torch.Tensor) -> float:
    return float(mask.float().mean())


def _mean(values: torch.Tensor) -> float | None:
    return float(values.double().mean()) if values.numel() else None
