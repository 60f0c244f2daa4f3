"""The rules behind the probe's words, with their thresholds; all ours, stated in docs/probe.md.

A threshold on an advantage is in units of the preset's mean absolute advantage, so that presets that do not divide by
a standard deviation are judged alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from verl_ispo.probe.measures import PresetMeasures, ProbeMeasures

MIN_GROUPS = 3
"""Fewer groups of a kind say nothing of that kind."""
MIN_EVENTS = 5
"""Fewer rollouts with some event say nothing of its advantage."""

CUT_WITHOUT_ANSWER = 0.3
"""From this share of all rollouts on that are cut before an answer, the length limit comes first."""
MOST_MISSING = 0.5
"""From this share of rollouts without an answer on, the form of the answer comes first."""
NEARLY_ALL = 0.8
"""From this share of groups of one kind on, the prompts are too hard or too easy."""
FEW_MIXED = 0.2
"""Below this share of mixed groups, few groups tell correct from incorrect."""

STATED_BEFORE = 0.5
"""From this share of answers that their traces state already..."""
PRIOR_LIKE = 0.7
"""... and this share of answers whose IFD is within a tenth of -log p(A | Q), IFD is a prior over answers."""
IFD_OUTWEIGHS = 0.5
"""From this share of the composite's variance in mixed groups on, IFD outweighs the outcome."""

ALL_WRONG_REACH = 0.1
"""Below this share of the absolute advantage, what all-wrong groups pay for moves little."""
ALL_WRONG_LARGE = 0.2
"""From this share on, a preset learns a large part of what it learns from them."""
PAID_ADVANTAGE = 0.1
"""An event is paid if its mean advantage in all-wrong groups is at least this..."""
PAID_GAP = 0.25
"""... and at least this much above that of incorrect answers there."""
ORDER_VIOLATIONS = 0.05
"""From this share of inverted pairs on, the intrinsic terms overturn outcomes and do not only refine them."""
FEW_PROMPTS = 16
"""Below this number of prompts every share is rough."""


class Start(Enum):
    """Where a model starts; the value is in words, behind "this model starts"."""

    CUT = "with responses that the length limit cuts before an answer"
    NO_ANSWER = "without an answer in a form that is read, in most rollouts"
    TOO_HARD = "with prompts that are too hard: nearly all groups have no correct rollout"
    TOO_EASY = "with prompts that are too easy: nearly all groups have no incorrect rollout"
    FEW_MIXED = "with few mixed groups"
    MIXED = "with mixed groups, from which outcomes alone can teach"


class Missing(Enum):
    """What there is too little of to judge; the value is in words."""

    GROUPS = "groups without a correct rollout"
    ANSWERS = "answers in groups without a correct rollout"


class Hazard(Enum):
    """What a preset would do; the value is the name in JSON."""

    PAYS_MISSING = "pays_missing"
    PAYS_LOST_TRACE = "pays_lost_trace"
    PAYS_COPYING = "pays_copying"
    LEARNS_PRIOR = "learns_prior"
    OVERTURNS = "overturns"


PAYING = (Hazard.PAYS_MISSING, Hazard.PAYS_LOST_TRACE, Hazard.PAYS_COPYING)
"""These teach something that nobody wants; the others add noise."""


@dataclass(frozen=True)
class Pay:
    """The advantage of an event in all-wrong groups, beside that of incorrect answers.

    Attributes:
        advantage: mean, as the preset gives it.
        incorrect: mean advantage of incorrect answers there.
        seen: rollouts with the event; 0 where it was not seen often enough and was computed for rollouts that did
            answer, one at a time.
    """

    advantage: float
    incorrect: float
    seen: int


@dataclass(frozen=True)
class Verdict:
    """What the rules say.

    Attributes:
        start: where the model starts.
        ifd_is_prior: `None` where too few rollouts have an answer.
        is_open: what is missing to say what a preset would do in groups without a correct rollout; `None` where nothing
            is.
        hazards: by preset, of every preset that was measured.
    """

    start: Start
    ifd_is_prior: bool | None
    is_open: Missing | None
    hazards: Mapping[str, Sequence[Hazard]]

    def free(self, presets: Sequence[str]) -> list[str]:
        """Those of some presets that have no hazard."""
        return [preset for preset in presets if not self.hazards[preset]]


def judge(measures: ProbeMeasures) -> Verdict:
    """Apply every rule."""
    is_prior = ifd_is_prior(measures)
    hazards = {name: preset_hazards(measures, one, is_prior) for one in measures.presets for name in one.presets}
    return Verdict(start_of(measures), is_prior, what_is_missing(measures), hazards)


def what_is_missing(measures: ProbeMeasures) -> Missing | None:
    """What keeps groups without a correct rollout from being judged."""
    groups = measures.group_counts["all_wrong"]
    if groups < MIN_GROUPS:
        return Missing.GROUPS if groups or measures.prompts < FEW_PROMPTS else None
    answered = measures.presets[0].all_wrong["incorrect_answer"].count
    return Missing.ANSWERS if answered < MIN_EVENTS else None


def start_of(measures: ProbeMeasures) -> Start:
    """The first of these that holds: what comes first has to be put right first."""
    shares = measures.group_shares
    if measures.cut * (measures.missing_of_cut or 0.0) >= CUT_WITHOUT_ANSWER:
        return Start.CUT
    if measures.missing >= MOST_MISSING:
        return Start.NO_ANSWER
    if shares["all_wrong"] >= NEARLY_ALL:
        return Start.TOO_HARD
    if shares["all_right"] >= NEARLY_ALL:
        return Start.TOO_EASY
    return Start.FEW_MIXED if shares["mixed"] < FEW_MIXED else Start.MIXED


def ifd_is_prior(measures: ProbeMeasures) -> bool | None:
    """Whether IFD only says how unlikely the answer is without the trace; `None` where that cannot be said."""
    answered = sum(one.count for one in measures.ifd.values())
    if answered < MIN_EVENTS or measures.states_answer is None or measures.prior_like is None:
        return None
    return measures.states_answer >= STATED_BEFORE and measures.prior_like >= PRIOR_LIKE


def ifd_outweighs(measures: ProbeMeasures) -> bool:
    """Whether IFD makes up most of the composite's variance in mixed groups."""
    mixed = measures.spreads["mixed"]
    return mixed.groups >= MIN_GROUPS and mixed.shares.get("ifd", 0.0) >= IFD_OUTWEIGHS


def pay_of(preset: PresetMeasures, event: str) -> Pay | None:
    """What an event gets in all-wrong groups: as seen, or computed for rollouts that did answer.

    Args:
        preset (`PresetMeasures`).
        event (`str`): ``missing``, ``without_trace`` or ``copied``, of which the last is only ever as seen.

    Returns:
        `Pay`, or `None` where neither is known.
    """
    seen, answered = preset.all_wrong[event], preset.all_wrong["incorrect_answer"]
    if answered.mean is None:
        return None
    if seen.count >= MIN_EVENTS and answered.count >= MIN_EVENTS:
        return Pay(seen.mean, answered.mean, seen.count)
    computed = {"missing": preset.if_unanswered, "without_trace": preset.if_without_trace}.get(event, {})
    advantage = computed.get("all_wrong")
    return None if advantage is None else Pay(advantage, answered.mean, 0)


def is_paid(preset: PresetMeasures, event: str) -> bool:
    """Whether an event is paid in all-wrong groups, above incorrect answers there."""
    pay = pay_of(preset, event)
    if pay is None or not preset.mean_size:
        return False
    unit = preset.mean_size
    return pay.advantage >= PAID_ADVANTAGE * unit and pay.advantage - pay.incorrect >= PAID_GAP * unit


def preset_hazards(measures: ProbeMeasures, preset: PresetMeasures, is_prior: bool | None) -> tuple[Hazard, ...]:
    """What a preset would do on rollouts like these."""
    share = preset.advantage_share["all_wrong"] or 0.0
    found = []
    if measures.group_counts["all_wrong"] >= MIN_GROUPS and share >= ALL_WRONG_REACH:
        for event, hazard in zip(("missing", "without_trace", "copied"), PAYING, strict=True):
            if is_paid(preset, event):
                found.append(hazard)
        if is_prior and preset.ifd_counts_in_all_wrong and share >= ALL_WRONG_LARGE:
            found.append(Hazard.LEARNS_PRIOR)
    enough = measures.group_counts["mixed"] >= MIN_GROUPS
    if enough and (preset.order_violation_rate or 0.0) >= ORDER_VIOLATIONS:
        found.append(Hazard.OVERTURNS)
    return tuple(found)
