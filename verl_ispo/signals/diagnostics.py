"""The numbers that show what ISPO does to a batch (names ours, definitions after the paper's tables and figures)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.signals.answer_span import ScoredAnswers
from verl_ispo.signals.composite import ISPOReward
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.right_answer import RightAnswerScores, right_answer_gain

# A trace of at most this many tokens holds no reasoning: "The answer is" and a dollar sign. Ours.
NEAR_EMPTY_TRACE_TOKENS = 4

_FEW_POSITIONS = 16


@dataclass(frozen=True)
class ObservedBatch:
    """Everything that the metrics read, without padding rows; shapes as in `compute_ispo_reward`.

    Attributes:
        reward: as `guarded_reward` returns it.
        training_reward: what the advantage was computed from, `(batch,)`: the composite reward, or the plain score
            under another estimator.
        correct: `(batch,)` bool.
        groups: which rollouts share a prompt.
        answers: answers, lead-ins and traces.
        response_ids: `(batch, response_length)` int64.
        response_mask: `(batch, response_length)` bool.
        entropy: `(batch, response_length)`, nats.
        answer_log_prob: `(batch, answer_length)`, given the trace.
        ablated_answer_log_prob: `(batch, answer_length)`, without it.
        answer_mask: `(batch, answer_length)` bool.
        right_answer: of the groups without a correct rollout; `None` unless `all_wrong_groups="right_answer"`.
    """

    reward: ISPOReward
    training_reward: torch.Tensor
    correct: torch.Tensor
    groups: RolloutGroups
    answers: ScoredAnswers
    response_ids: torch.Tensor
    response_mask: torch.Tensor
    entropy: torch.Tensor
    answer_log_prob: torch.Tensor
    ablated_answer_log_prob: torch.Tensor
    answer_mask: torch.Tensor
    right_answer: RightAnswerScores | None = None


def signal_metrics(batch: ObservedBatch, config: ISPOConfig, knows_drift: bool = True) -> dict[str, float]:
    """Every ``ispo/`` metric that needs no advantage. A metric that is undefined on this batch is left out, never 0.

    Args:
        batch (`ObservedBatch`).
        config (`ISPOConfig`).
        knows_drift (`bool`, *optional*, defaults to `True`): whether there are log-probs of the reference policy;
            without them the metrics of drift and critical tokens are undefined.
    """
    reward, correct, answered = batch.reward, batch.correct, batch.answers.spans.found
    # Of what the policy wrote, whatever A and T are, so that runs with other settings can be compared.
    trace_length = batch.answers.content.lead_in_start
    metrics: dict[str, float | None] = {
        "ispo/answer_missing_rate": _mean(~answered),
        "ispo/trace_dropped_rate": _mean(answered & (trace_length <= NEAR_EMPTY_TRACE_TOKENS)),
        "ispo/trace_length": _mean(trace_length[answered]),
        "ispo/order_violation_rate": order_violation_rate(batch.training_reward, correct, batch.groups),
        **_zero_advantage_metrics(batch),
        **_critical_token_metrics(batch, config, knows_drift),
        **_right_answer_metrics(batch),
    }
    # The composite is the sum of these parts under every estimator, even where training uses the plain score.
    parts = {
        "outcome": reward.parts.outcome,
        "ifd": reward.parts.ifd,
        "token": reward.parts.token,
        "composite": reward.total,
    }
    if not knows_drift:
        del parts["token"]
    if config.trace_end == "first_statement":
        metrics["ispo/answer_stated_rate"] = _mean(batch.answers.stated[answered])
        metrics["ispo/trace_length_to_statement"] = _mean(batch.answers.trace_end[answered])
    if config.missing_answer != "zero" or config.all_wrong_groups == "right_answer":
        parts["missing_answer"] = reward.parts.missing_answer
    for name, part in parts.items():
        metrics[f"ispo/reward/{name}/mean"] = _mean(part)
        metrics[f"ispo/reward/{name}/std"] = _std(part)
    for name, rows in (("correct", correct & answered), ("wrong", ~correct & answered)):
        mask = batch.answer_mask & rows.unsqueeze(-1)
        metrics[f"ispo/ifd/{name}/mean"] = _mean(reward.measured_ifd[rows])
        metrics[f"ispo/ifd/{name}/std"] = _std(reward.measured_ifd[rows])
        metrics[f"ispo/answer_length/{name}"] = _mean(batch.answers.spans.length[rows])
        metrics[f"ispo/answer_log_prob/given_trace/{name}"] = _mean(batch.answer_log_prob[mask])
        metrics[f"ispo/answer_log_prob/ablated/{name}"] = _mean(batch.ablated_answer_log_prob[mask])
    return _defined(metrics)


def advantage_metrics(advantage: torch.Tensor, batch: ObservedBatch) -> dict[str, float]:
    """Where the gradient comes from: shares of the absolute advantage, and what is paid for not answering.

    Args:
        advantage (`torch.Tensor` of shape `(batch,)`): one number per rollout.
        batch (`ObservedBatch`).
    """
    all_wrong = batch.groups.all_wrong(batch.correct)[batch.groups.ids]
    all_right = batch.groups.all_right(batch.correct)[batch.groups.ids]
    total = advantage.abs().sum()
    classes = {"all_wrong": all_wrong, "all_right": all_right, "mixed": ~all_wrong & ~all_right}
    metrics: dict[str, float | None] = {
        f"ispo/advantage_share/{name}": float(advantage[rows].abs().sum() / total) if total > 0 else None
        for name, rows in classes.items()
    }
    answered = batch.answers.spans.found
    metrics["ispo/missing_answer_advantage"] = _mean(advantage[~answered])
    for name, rows in (("missing", ~answered), ("answered", answered)):
        metrics[f"ispo/all_wrong_advantage/{name}"] = _mean(advantage[rows & all_wrong])
    return _defined(metrics)


def order_violation_rate(reward: torch.Tensor, correct: torch.Tensor, groups: RolloutGroups) -> float | None:
    """Share of the pairs of a correct and an incorrect rollout of a group in which the incorrect one has more reward.

    Returns:
        `float`, or `None` where no group has both kinds.
    """
    if groups.count == 0:
        return None
    # Rows sorted by group, then laid out as (group, index in the group), so that a group's pairs are one small square.
    order = groups.ids.argsort(stable=True)
    first = groups.size.cumsum(0) - groups.size
    group = groups.ids[order]
    index = torch.arange(order.numel()) - first[group]
    shape = (groups.count, int(groups.size.max()))
    table = torch.zeros(shape, dtype=reward.dtype).index_put((group, index), reward[order])
    is_correct = torch.zeros(shape, dtype=torch.bool).index_put((group, index), correct[order])
    is_incorrect = torch.zeros(shape, dtype=torch.bool).index_put((group, index), ~correct[order])
    pairs = is_correct.unsqueeze(2) & is_incorrect.unsqueeze(1)
    violated = pairs & (table.unsqueeze(1) > table.unsqueeze(2))
    return float(violated.sum() / pairs.sum()) if pairs.any() else None


def _zero_advantage_metrics(batch: ObservedBatch) -> dict[str, float | None]:
    groups = batch.groups
    several = groups.size > 1  # a group of one has no spread to lose
    flat_outcome = (groups.spread(batch.reward.parts.outcome) == 0) & several
    answered_ifd = torch.where(batch.answers.spans.found, batch.reward.measured_ifd, 0)
    mean = groups.reduce(answered_ifd, "mean")[groups.ids]
    ifd_variance = groups.reduce((answered_ifd - mean) ** 2, "sum") / (groups.size - 1).clamp(min=1)
    return {
        "ispo/zero_adv_rate/outcome": _mean(flat_outcome[several]),
        "ispo/zero_adv_rate/composite": _mean((groups.spread(batch.training_reward) == 0)[several]),
        "ispo/identical_group_rate": _mean(_same_tokens(batch)[several]),
        "ispo/ifd_std_in_zero_adv_groups": _mean(ifd_variance.sqrt()[flat_outcome]),
    }


def _same_tokens(batch: ObservedBatch) -> torch.Tensor:
    """Groups whose rollouts have the same tokens at the same positions, `(groups,)` bool."""
    groups, length = batch.groups, batch.response_ids.shape[1]
    if not groups.count:
        return torch.ones(0, dtype=torch.bool)
    first_of_group = torch.full((groups.count,), len(groups.ids)).scatter_reduce(
        0, groups.ids, torch.arange(len(groups.ids)), reduce="amin"
    )
    same = torch.ones(groups.count, dtype=torch.bool)
    # Few positions tell nearly all groups apart, so the others are looked at for few groups.
    for columns in (slice(0, _FEW_POSITIONS), slice(_FEW_POSITIONS, length)):
        rows = same[groups.ids].nonzero().squeeze(-1)
        first = first_of_group[groups.ids[rows]]
        tokens, mask = batch.response_ids[:, columns], batch.response_mask[:, columns]
        here, there = (torch.where(mask[some], tokens[some], -1) for some in (rows, first))
        differs = (here != there).any(dim=-1)
        same[groups.ids[rows[differs]]] = False
    return same


def _critical_token_metrics(batch: ObservedBatch, config: ISPOConfig, knows_drift: bool) -> dict[str, float | None]:
    reward, written = batch.reward, int(batch.response_mask.sum())

    def share(mask: torch.Tensor) -> float | None:
        return int((mask & batch.response_mask).sum()) / written if written else None

    def entropies(mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Entropies where the mask is true, in correct and in incorrect rollouts."""
        is_correct = batch.correct.repeat_interleave(mask.sum(dim=-1))
        chosen = batch.entropy[mask]
        return {"correct": chosen[is_correct], "wrong": chosen[~is_correct]}

    metrics: dict[str, float | None] = {"ispo/critical_fraction/entropy": share(reward.entropy_mask)}
    for name, values in entropies(reward.entropy_mask).items():
        metrics[f"ispo/entropy_filter_entropy/{name}"] = _mean(values)
    if not knows_drift:
        return metrics
    critical = entropies(reward.critical_mask)
    for name, values in critical.items():
        metrics[f"ispo/critical_entropy/{name}"] = _mean(values)
    metrics["ispo/hinge_active_rate"] = _mean(critical["wrong"] < config.entropy_floor)
    metrics["ispo/critical_fraction/drift"] = share(reward.drift_mask)
    metrics["ispo/critical_fraction/both"] = share(reward.entropy_mask & reward.drift_mask)
    return metrics


def _right_answer_metrics(batch: ObservedBatch) -> dict[str, float | None]:
    """The correct answer's gain as measured, and how many of the groups without a correct rollout have one (ours)."""
    scores, groups = batch.right_answer, batch.groups
    if scores is None:
        return {}
    all_wrong = groups.all_wrong(batch.correct)
    gain = right_answer_gain(scores)[scores.scored]
    return {
        "ispo/right_answer_gain/mean": _mean(gain),
        "ispo/right_answer_gain/std": _std(gain),
        "ispo/right_answer_raised_rate": _mean(gain > 0),
        "ispo/right_answer_log_prob/given_trace": _mean(scores.given_trace[scores.mask]),
        "ispo/right_answer_log_prob/ablated": _mean(scores.ablated[scores.mask]),
        "ispo/right_answer_served_rate": _mean((groups.reduce(scores.scored.float(), "amax") > 0)[all_wrong]),
        "ispo/right_answer_too_long_rate": _mean((groups.reduce(scores.too_long.float(), "amax") > 0)[all_wrong]),
    }


def _mean(values: torch.Tensor) -> float | None:
    return float(values.double().mean()) if values.numel() else None


def _std(values: torch.Tensor) -> float | None:
    return float(values.double().std()) if values.numel() > 1 else None


def _defined(metrics: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}
