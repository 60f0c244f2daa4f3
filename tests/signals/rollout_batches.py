"""Random batches of rollouts for the property tests, and their layout as padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from tests.signals.loop_reference import Rollout
from verl_ispo import ISPOConfig, ISPOReward, compute_ispo_reward
from verl_ispo.signals.answer_span import AnswerSpans, ScoredAnswers, gather_answer
from verl_ispo.signals.groups import RolloutGroups, guarded_reward
from verl_ispo.signals.right_answer import RightAnswerScores
from verl_ispo.signals.running_ifd import RunningIFD

# Multiples of 1/16 are exact in every float type, so that thresholds are met exactly and equal entropies are frequent.
STEP = 1 / 16


def multiples(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(round(low / STEP), round(high / STEP)).map(lambda count: count * STEP)


def configs(**fixed: Any) -> st.SearchStrategy[ISPOConfig]:
    """Any settings; ``fixed`` ones as given."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        "ifd_weight": st.sampled_from([0.0, 0.1, 0.5, 2.0]),
        "token_weight": st.sampled_from([0.0, 0.05, 0.1, 1.0]),
        "top_entropy_fraction": st.sampled_from([0.01, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0]),
        "drift_threshold": st.sampled_from([-0.5, 0.0, 0.1, 0.25, 0.3, 0.5]),
        "entropy_floor": st.sampled_from([0.0, 0.1, 0.25, 0.3, 1.0]),
        "entropy_bonus": st.sampled_from([0.0, 0.5, 1.0]),
        "hinge_weight": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        "critical_selection": st.sampled_from(["intersection", "union", "entropy", "drift"]),
        "symmetric_token_reward": st.booleans(),
        "min_group_std": st.sampled_from([0.0, 0.05, 0.5]),
        "all_wrong_groups": st.sampled_from(["paper", "token_only", "off", "informative", "right_answer"]),
        "all_right_groups": st.sampled_from(["paper", "token_only", "off"]),
        "missing_answer": st.sampled_from(["zero", "group_min"]),
        "max_abs_ifd": st.sampled_from([None, 0.25, 1.0]),
        "min_right_answer_gain": st.sampled_from([None, 0.0, -1.0]),
        "exclude_answer_from_critical": st.booleans(),
        "ifd_reference": st.sampled_from(["none", "running_mean", "right_rollouts"]),
        "ifd_running_decay": st.sampled_from([0.0, 0.5, 0.9]),
        "same_outcome_std": st.sampled_from(["own", "one_success"]),
    }
    fields.update({name: st.just(value) for name, value in fixed.items()})
    return st.builds(ISPOConfig, **fields)


@st.composite
def rollouts(draw: st.DrawFn, max_tokens: int = 24, groups: int = 3) -> Rollout:
    """One rollout of 0 to ``max_tokens`` tokens; half of the answers are missing or short."""
    length = draw(st.integers(0, max_tokens))

    def tokens(elements: st.SearchStrategy[Any]) -> tuple[Any, ...]:
        return tuple(draw(st.lists(elements, min_size=length, max_size=length)))

    lead_in_start = answer_start = answer_end = 0
    if length and draw(st.booleans()):
        lead_in_start, answer_start, last = sorted(draw(st.tuples(*[st.integers(0, length - 1)] * 3)))
        answer_end = last + 1
    correct = draw(st.booleans())
    token_ids = tokens(st.integers(0, 3))
    answer = range(answer_start, answer_end)
    # now and then an answered rollout is not scored, because its text would be too long
    right_answer_length = draw(st.integers(0, 3)) if answer else 0
    right_given, right_ablated = (
        tuple(draw(st.lists(multiples(-6, 0), min_size=right_answer_length, max_size=right_answer_length)))
        for _ in range(2)
    )
    return Rollout(
        group=f"prompt-{draw(st.integers(0, groups - 1))}",
        score=draw(st.sampled_from([float(correct), 2.0 * correct - 1, 0.5, 0.0])),
        correct=correct,
        token_ids=token_ids,
        written=tokens(st.sampled_from([True, True, True, False])),
        log_prob=tokens(multiples(-6, 0)),
        ref_log_prob=tokens(multiples(-6, 0)),
        entropy=tokens(multiples(0, 2)),
        lead_in_start=lead_in_start,
        answer_start=answer_start,
        answer_end=answer_end,
        ablated=tuple(draw(st.lists(multiples(-6, 0), min_size=len(answer), max_size=len(answer)))),
        candidate=tuple(position not in answer and token != 0 for position, token in enumerate(token_ids)),
        right_given=right_given,
        right_ablated=right_ablated,
    )


def batches(min_size: int = 1, max_size: int = 10, **settings: Any) -> st.SearchStrategy[list[Rollout]]:
    return st.lists(rollouts(**settings), min_size=min_size, max_size=max_size)


def padded(
    rows: Sequence[Sequence[float]], width: int, masks: Sequence[Sequence[bool]] | None = None, junk: float = 0.0
) -> torch.Tensor:
    """Float32 rows with ``junk`` behind their ends and wherever their mask is false."""
    out = torch.full((len(rows), width), junk)
    for row, values in enumerate(rows):
        for position, value in enumerate(values):
            if masks is None or masks[row][position]:
                out[row, position] = value
    return out


def answer_spans(batch: Sequence[Rollout]) -> AnswerSpans:
    columns = [
        [getattr(rollout, name) for rollout in batch] for name in ("lead_in_start", "answer_start", "answer_end")
    ]
    return AnswerSpans(*(torch.tensor(column, dtype=torch.long) for column in columns))


def scored_answers(batch: Sequence[Rollout]) -> ScoredAnswers:
    """As with the defaults: A is the content, T all that is before its lead-in."""
    spans = answer_spans(batch)
    return ScoredAnswers(spans, spans, spans.lead_in_start)


def right_answer_scores(batch: Sequence[Rollout], padding: int = 0, junk: float = 0.0) -> RightAnswerScores:
    width = max((len(rollout.right_given) for rollout in batch), default=0) + 1 + padding
    masks = [(True,) * len(rollout.right_given) for rollout in batch]
    return RightAnswerScores(
        given_trace=padded([rollout.right_given for rollout in batch], width, None, junk),
        ablated=padded([rollout.right_ablated for rollout in batch], width, None, junk),
        mask=padded(masks, width).bool(),
        too_long=torch.zeros(len(batch), dtype=torch.bool),
    )


def library_guarded(batch: Sequence[Rollout], config: ISPOConfig, padding: int = 0, junk: float = 0.0) -> ISPOReward:
    """The reward with its guards, in the groups that the rollouts name."""
    groups = RolloutGroups.from_labels([rollout.group for rollout in batch])
    correct = torch.tensor([rollout.correct for rollout in batch], dtype=torch.bool)
    right_answer = right_answer_scores(batch, padding, junk)
    return guarded_reward(library_reward(batch, config, padding, junk), correct, groups, config, right_answer)


def reward_inputs(batch: Sequence[Rollout], padding: int = 0, junk: float = 0.0) -> dict[str, torch.Tensor]:
    """Arguments of `compute_ispo_reward`, with ``padding`` extra columns and ``junk`` wherever a mask is false."""
    width = max((len(rollout.token_ids) for rollout in batch), default=0) + padding
    written = [rollout.written for rollout in batch]
    spans = answer_spans(batch)
    # The answer is gathered from the unmasked values: a hole in the response mask is no hole in the answer.
    answer_width = max(1, width)
    answer_log_prob, answer_mask = gather_answer(padded([r.log_prob for r in batch], answer_width), spans)
    answer_log_prob = torch.where(answer_mask, answer_log_prob, junk)
    extra = torch.full((len(batch), padding), junk)
    return {
        "score": torch.tensor([rollout.score for rollout in batch]),
        "correct": torch.tensor([rollout.correct for rollout in batch], dtype=torch.bool),
        "log_prob": padded([r.log_prob for r in batch], width, written, junk),
        "ref_log_prob": padded([r.ref_log_prob for r in batch], width, written, junk),
        "entropy": padded([r.entropy for r in batch], width, written, junk),
        "response_mask": padded(written, width).bool(),
        "answer_log_prob": torch.cat([answer_log_prob, extra], dim=1),
        "ablated_answer_log_prob": torch.cat(
            [padded([r.ablated for r in batch], answer_mask.shape[1], None, junk), extra], dim=1
        ),
        "answer_mask": torch.cat([answer_mask, torch.zeros(len(batch), padding, dtype=torch.bool)], dim=1),
        "entropy_candidate_mask": padded([r.candidate for r in batch], width).bool(),
    }


def library_reward(
    batch: Sequence[Rollout],
    config: ISPOConfig,
    padding: int = 0,
    junk: float = 0.0,
    running_ifd: RunningIFD | None = None,
) -> ISPOReward:
    return compute_ispo_reward(**reward_inputs(batch, padding, junk), config=config, running_ifd=running_ifd)
