"""The rollout view: what the page shows of the dumped groups, bounded in size."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from verl_ispo.report.number_format import show, signed
from verl_ispo.report.visible_text import MAX_TOKEN_CHARS, visible
from verl_ispo.runs.rollout_dump.reader import DumpedGroup, DumpedRollout

# Rollouts of a group whose tokens are shown, from both ends of the order by advantage; the group's table has them all.
MAX_ROLLOUTS_SHOWN = 8
MAX_CRITICAL_ROWS = 12
MAX_ANSWER_ROWS = 12
MAX_PROMPT_CHARS = 1500
MAX_HEADING_CHARS = 70

ENTROPY_BINS = (0.05, 0.2, 0.5, 1.0, 2.0)  # nats
DRIFT_BINS = (-1.0, -0.3, -0.05, 0.05, 0.3, 1.0)  # nats

OUTCOME_WORDS = {"all_wrong": "all wrong", "mixed": "mixed", "all_right": "all correct"}


@dataclass(frozen=True)
class ShownToken:
    """A token, or a stretch of tokens left out (``classes`` empty, ``text`` the note)."""

    text: str
    classes: str
    hint: str
    ends_line: bool


@dataclass(frozen=True)
class AnswerToken:
    """One answer token: its probability with the trace and without it, and the gain in nats."""

    text: str
    given_trace: float
    ablated: float
    gain: float


@dataclass(frozen=True)
class CriticalToken:
    """One critical token and what it adds to the mean that is R_token."""

    position: int
    text: str
    entropy: float
    log_prob: float
    drift: float
    adds: float


@dataclass(frozen=True)
class ShownRollout:
    """A rollout of a group: numbers for its row, and tokens where it is among those shown in full.

    Attributes:
        number: rank in the group by advantage, from 1.
        rollout: the numbers.
        above_mean: training reward minus the group's mean.
        bar_percent: length of the advantage's bar, of the longest in the group.
        answer: text of A, empty without one.
        tokens: empty where the tokens are not shown.
        left_out: tokens that the view leaves out.
        answer_tokens, critical_tokens: first few of each.
    """

    number: int
    rollout: DumpedRollout
    above_mean: float
    bar_percent: float
    answer: str
    tokens: Sequence[ShownToken]
    left_out: int
    answer_tokens: Sequence[AnswerToken]
    critical_tokens: Sequence[CriticalToken]

    @property
    def answer_probability(self) -> float:
        """p(A | Q, T)."""
        return math.exp(min(sum(self.rollout.answer_log_prob), 0.0))

    @property
    def ablated_answer_probability(self) -> float:
        """p(A | Q)."""
        return math.exp(min(sum(self.rollout.ablated_answer_log_prob), 0.0))


@dataclass(frozen=True)
class ShownGroup:
    """A group with its rollouts in order of advantage."""

    run: str
    group: DumpedGroup
    prompt: str
    mean: float
    std: float
    rule: str
    rollouts: Sequence[ShownRollout]

    @property
    def title(self) -> str:
        """Outcome, and how many were correct."""
        correct = sum(shown.rollout.correct for shown in self.rollouts)
        return f"{OUTCOME_WORDS[self.group.outcome]}: {correct} of {len(self.rollouts)} correct"

    @property
    def missing_answer_counts(self) -> bool:
        """Whether a guard lowered the reward of rollouts without an answer."""
        return any(shown.rollout.parts.get("missing_answer") for shown in self.rollouts)

    @property
    def heading(self) -> str:
        """The prompt's first words on one line."""
        return visible(self.group.prompt_text.replace("\n", " "), MAX_HEADING_CHARS)

    @property
    def shown_in_full(self) -> list[ShownRollout]:
        """The rollouts whose tokens are shown."""
        return [shown for shown in self.rollouts if shown.tokens]


def show_group(run: str, group: DumpedGroup, max_tokens: int) -> ShownGroup:
    """Prepare one group for the page.

    Args:
        run (`str`): its run's name.
        group (`DumpedGroup`).
        max_tokens (`int`): most tokens of a response that are shown.
    """
    ordered = sorted(group.rollouts, key=lambda rollout: _sortable(-rollout.advantage))
    rewards = [rollout.training_reward for rollout in ordered]
    mean = statistics.fmean(rewards)
    std = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
    longest = max((abs(rollout.advantage) for rollout in ordered if math.isfinite(rollout.advantage)), default=0.0)
    shown_indices = _both_ends(len(ordered), MAX_ROLLOUTS_SHOWN)
    rollouts = []
    for at, rollout in enumerate(ordered):
        tokens, left_out = _show_tokens(rollout, max_tokens) if at in shown_indices else ([], 0)
        rollouts.append(
            ShownRollout(
                number=at + 1,
                rollout=rollout,
                above_mean=rollout.training_reward - mean,
                bar_percent=100 * abs(rollout.advantage) / longest if longest else 0.0,
                answer=_answer_text(rollout),
                tokens=tokens,
                left_out=left_out,
                answer_tokens=_answer_tokens(rollout) if tokens else [],
                critical_tokens=_critical_tokens(rollout) if tokens else [],
            )
        )
    rule = _advantage_rule(ordered, mean, std)
    return ShownGroup(run, group, visible(group.prompt_text, MAX_PROMPT_CHARS), mean, std, rule, rollouts)


def _advantage_rule(rollouts: Sequence[DumpedRollout], mean: float, std: float) -> str:
    """How the advantages follow from the training rewards, checked on the numbers themselves."""

    def follows(expected: Sequence[float]) -> bool:
        return all(
            math.isclose(rollout.advantage, value, rel_tol=0.02, abs_tol=0.01)
            for rollout, value in zip(rollouts, expected, strict=True)
        )

    centred = [rollout.training_reward - mean for rollout in rollouts]
    if all(value == 0 for value in centred) and follows([0.0] * len(rollouts)):
        return "All training rewards are equal, so no rollout has an advantage."
    less_mean = f"trained on {'+' if mean < 0 else '−'} {abs(mean):.3f}"
    if std and follows([value / std for value in centred]):
        return f"advantage = ({less_mean}) / {std:.3f}, from the group's mean and standard deviation."
    if follows(centred):
        return f"advantage = {less_mean}, from the group's mean."
    return (
        f"The group's mean is {mean:.3f} and its standard deviation {std:.3f}, but the trainer's advantages do not "
        "follow from them alone: a floor under the deviation, KL in the reward or another estimator changes them."
    )


def _show_tokens(rollout: DumpedRollout, max_tokens: int) -> tuple[list[ShownToken], int]:
    length = len(rollout.token_texts)
    kept = _kept_positions(length, rollout.answer, max_tokens)
    shown: list[ShownToken] = []
    at = 0
    while at < length:
        if at in kept:
            shown.append(_show_token(rollout, at))
            at += 1
            continue
        start = at
        while at < length and at not in kept:
            at += 1
        shown.append(ShownToken(f"[{at - start:,} tokens left out, {start} to {at - 1}]", "", "", True))
    return shown, length - len(kept)


def _kept_positions(length: int, answer: tuple[int, int, int] | None, max_tokens: int) -> set[int]:
    if length <= max_tokens:
        return set(range(length))
    third = max(1, max_tokens // 3)
    kept = set(range(third)) | set(range(length - third, length))
    # What leads to the answer matters most; where it is at the end already, the beginning gets those tokens.
    middle = answer[0] - third // 2 if answer else third
    if middle + third > length - third:
        middle = length - 2 * third
    kept |= set(range(max(0, middle), max(0, middle) + third))
    return {position for position in kept if 0 <= position < length}


def _show_token(rollout: DumpedRollout, position: int) -> ShownToken:
    entropy, log_prob = rollout.entropy[position], rollout.log_prob[position]
    drift = log_prob - rollout.ref_log_prob[position]
    classes = []
    if rollout.response_mask[position]:
        if math.isfinite(entropy):
            classes.append(f"e{bisect_right(ENTROPY_BINS, entropy)}")
        if math.isfinite(drift):
            classes.append(f"d{bisect_right(DRIFT_BINS, drift)}")
        if position in rollout.critical:
            classes.append("critical")
        if position in rollout.entropy_filter:
            classes.append("in-e")
        if position in rollout.drift_filter:
            classes.append("in-d")
    else:
        classes.append("given")
    if rollout.answer is not None:
        lead_in, start, end = rollout.answer
        if start <= position < end:
            classes.append("answer")
        elif lead_in <= position < start:
            classes.append("lead-in")
    hint = f"{position}: H {show(entropy)}, p {show(_probability(log_prob))}, drift {signed(drift)}"
    text = rollout.token_texts[position]
    return ShownToken(visible(text, MAX_TOKEN_CHARS) or "∅", " ".join(classes), hint, "\n" in text)


def _answer_text(rollout: DumpedRollout) -> str:
    if rollout.answer is None:
        return ""
    _, start, end = rollout.answer
    return visible("".join(rollout.token_texts[start:end]), MAX_TOKEN_CHARS)


def _answer_tokens(rollout: DumpedRollout) -> list[AnswerToken]:
    if rollout.answer is None:
        return []
    texts = rollout.token_texts[rollout.answer[1] : rollout.answer[2]]
    rows = zip(texts, rollout.answer_log_prob, rollout.ablated_answer_log_prob, strict=True)
    return [
        AnswerToken(visible(text, MAX_TOKEN_CHARS), _probability(given), _probability(ablated), given - ablated)
        for text, given, ablated in list(rows)[:MAX_ANSWER_ROWS]
    ]


def _critical_tokens(rollout: DumpedRollout) -> list[CriticalToken]:
    return [
        CriticalToken(
            position=position,
            text=visible(rollout.token_texts[position], MAX_TOKEN_CHARS),
            entropy=rollout.entropy[position],
            log_prob=rollout.log_prob[position],
            drift=rollout.log_prob[position] - rollout.ref_log_prob[position],
            adds=rollout.critical_terms[position],
        )
        for position in sorted(rollout.critical)[:MAX_CRITICAL_ROWS]
    ]


def _both_ends(count: int, shown: int) -> set[int]:
    if count <= shown:
        return set(range(count))
    return set(range(shown // 2)) | set(range(count - (shown - shown // 2), count))


def _probability(log_prob: float) -> float:
    return math.exp(min(log_prob, 0.0)) if math.isfinite(log_prob) else math.nan


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else math.inf
