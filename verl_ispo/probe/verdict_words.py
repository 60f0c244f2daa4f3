"""The verdict in words: sentences that state the measured numbers, and what the rules of `regimes` make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verl_ispo.probe.measures import PresetMeasures, ProbeMeasures
from verl_ispo.probe.preset_advantages import BESIDE
from verl_ispo.probe.regimes import (
    ALL_WRONG_REACH,
    FEW_PROMPTS,
    MIN_GROUPS,
    PAYING,
    Hazard,
    Start,
    Verdict,
    ifd_outweighs,
    pay_of,
)

PAPER = "ispo"
MANY_CUT = 0.1
"""From this share of cut rollouts on, it is said whether they have answered."""
SMALL_STD = 0.1
"""Below this standard deviation of the composite in same-outcome groups, in units of reward, it is said."""

_FIRST = {
    Start.CUT: "Allow longer responses first (--max-new-tokens here, data.max_response_length in the training); what "
    "follows describes cut responses.",
    Start.NO_ANSWER: "Teach the form first: worked examples as chat turns (python -m data_prep.generic --shots FILE), "
    "or a few steps of supervised fine-tuning. What follows describes the few rollouts that do answer.",
    Start.TOO_HARD: "Easier prompts, worked examples or a few steps of supervised fine-tuning come first: outcomes "
    "teach next to nothing here, and whatever a method adds decides alone.",
    Start.TOO_EASY: "Harder prompts come first: outcomes teach next to nothing here.",
    Start.FEW_MIXED: "More rollouts per prompt, or prompts of middle difficulty, give outcomes more to teach.",
    Start.MIXED: "",
}

HAZARD_WORDS = {
    Hazard.PAYS_MISSING: "pays for no answer",
    Hazard.PAYS_LOST_TRACE: "pays for no trace",
    Hazard.PAYS_COPYING: "pays for copying",
    Hazard.LEARNS_PRIOR: "learns the prior",
    Hazard.OVERTURNS: "overturns outcomes",
}
"""For tables."""

_EVENT_OF = {
    Hazard.PAYS_MISSING: ("missing", "giving no answer", "a rollout without an answer"),
    Hazard.PAYS_LOST_TRACE: ("without_trace", "answering without a trace", "an answer without a trace"),
    Hazard.PAYS_COPYING: ("copied", "copying a number of the question", "a copied number"),
}


@dataclass(frozen=True)
class VerdictWords:
    """The verdict, in paragraphs.

    Attributes:
        headline: in one sentence.
        facts: what was seen.
        paper: what ISPO as in the paper would do.
        presets: what the others would do.
        next_steps: what to do first; may be empty.
        cautions: how far this can be trusted.
    """

    headline: str
    facts: Sequence[str]
    paper: Sequence[str]
    presets: Sequence[str]
    next_steps: Sequence[str]
    cautions: Sequence[str]

    def sections(self) -> list[tuple[str, Sequence[str]]]:
        """Title and sentences of everything below the headline, in the order in which it is read."""
        titled = (
            ("What was seen", self.facts),
            ("What ISPO as in the paper would do", self.paper),
            ("What other presets would do", self.presets),
            ("What to do first", self.next_steps),
            ("How far to trust this", self.cautions),
        )
        return [(title, sentences) for title, sentences in titled if sentences]


def verdict_words(measures: ProbeMeasures, verdict: Verdict, has_reference: bool) -> VerdictWords:
    """Put a verdict into words.

    Args:
        measures (`ProbeMeasures`).
        verdict (`Verdict`): of these measures.
        has_reference (`bool`): whether another model was the reference.
    """
    return VerdictWords(
        headline=_headline(verdict),
        facts=[_groups(measures), *_answers(measures), *_ifd(measures, verdict), _token_term(measures, has_reference)],
        paper=_paper(measures, verdict),
        presets=_presets(measures, verdict),
        next_steps=[words for words in [_FIRST[verdict.start]] if words],
        cautions=_cautions(measures),
    )


def _headline(verdict: Verdict) -> str:
    prior = {True: ", and its IFD is a prior over answers", False: ", and its IFD is more than a prior over answers"}
    start = f"This model starts {verdict.start.value}{prior.get(verdict.ifd_is_prior, '')}."
    paying = [_EVENT_OF[hazard][1] for hazard in verdict.hazards[PAPER] if hazard in PAYING]
    if paying:
        return f"{start} ISPO as in the paper would pay for {_and(paying)}."
    if verdict.hazards[PAPER]:
        others = {
            Hazard.LEARNS_PRIOR: "learn from how likely answers are without their traces",
            Hazard.OVERTURNS: "prefer some incorrect rollouts to correct ones",
        }
        return f"{start} ISPO as in the paper would {_and([others[hazard] for hazard in verdict.hazards[PAPER]])}."
    if verdict.is_open:
        return f"{start} Too few {verdict.is_open.value} to say what ISPO as in the paper would pay for."
    return f"{start} Nothing seen here speaks against ISPO as in the paper."


def _groups(measures: ProbeMeasures) -> str:
    shares, counts = measures.group_shares, measures.group_counts
    within = {name: interval_words(interval) for name, interval in measures.intervals.items()}
    return (
        f"pass@1 is {percent(measures.pass_at_1)}{within['pass_at_1']} ({measures.prompts} prompts, "
        f"{measures.rollouts} rollouts). Of the groups {percent(shares['mixed'])}{within['mixed']} are mixed "
        f"({counts['mixed']}), {percent(shares['all_wrong'])}{within['all_wrong']} have no correct rollout "
        f"({counts['all_wrong']}) and {percent(shares['all_right'])}{within['all_right']} no incorrect one "
        f"({counts['all_right']}); 95 % intervals over prompts."
    )


def _answers(measures: ProbeMeasures) -> list[str]:
    said = [
        f"{percent(measures.missing)} of the rollouts give no answer, the length limit cuts {percent(measures.cut)}, "
        f"{percent(measures.trace_dropped)} answer with next to no trace."
    ]
    if measures.cut >= MANY_CUT and (measures.missing_of_cut or 0.0) < 0.5:
        said.append(
            f"Most of the cut ones have answered before ({percent(1 - (measures.missing_of_cut or 0.0))}): the model "
            "goes on after its answer."
        )
    if measures.copied_of_wrong:
        said.append(f"{percent(measures.copied_of_wrong)} of the incorrect answers are a number of the question.")
    return said


def _ifd(measures: ProbeMeasures, verdict: Verdict) -> list[str]:
    parts = [
        f"{signed(one.mean)} nats per token for {name} answers (log p(A | Q, T) {signed(measures.given_trace[key])}, "
        f"log p(A | Q) {signed(measures.ablated[key])}; {count_of(one.count, 'answer')})"
        for key, name in (("correct", "correct"), ("wrong", "incorrect"))
        if (one := measures.ifd[key]).count
    ]
    if not parts:
        return ["No rollout has an answer, so there is no IFD."]
    said = [f"IFD is {' and '.join(parts)}. The paper's figure shows about 0.3."]
    stated, alike = measures.states_answer, measures.prior_like
    if verdict.ifd_is_prior is not None:
        said.append(
            f"{percent(stated)} of the traces state the answer before the lead-in, and {percent(alike)} of the answers "
            "are so certain after them that IFD is within a tenth of -log p(A | Q): "
            + (
                "IFD says how unlikely an answer is without the trace, a prior over answers, and little about the "
                "reasoning."
                if verdict.ifd_is_prior
                else "IFD is not only a prior over answers."
            )
        )
    mixed = measures.spreads["mixed"]
    if mixed.groups >= MIN_GROUPS and mixed.shares:
        shares = ", ".join(f"{_PART_WORDS[name]} {percent(share)}" for name, share in mixed.shares.items())
        said.append(
            f"In mixed groups the composite differs by: {shares}."
            + (" IFD outweighs the outcome there." if ifd_outweighs(measures) else "")
        )
    for kind, words in (("all_wrong", "a correct"), ("all_right", "an incorrect")):
        spread = measures.spreads[kind]
        if spread.std is not None and 0 < spread.std < SMALL_STD:
            said.append(
                f"In groups without {words} rollout the composite has a standard deviation of {spread.std:.2g}: "
                "dividing by it makes full-size advantages of differences that small."
            )
    return said


_PART_WORDS = {"outcome": "outcome", "ifd": "IFD", "token": "token term", "missing_answer": "missing answers"}


def _token_term(measures: ProbeMeasures, has_reference: bool) -> str:
    if has_reference:
        return f"{percent(measures.drifted)} of the tokens have drifted from the reference."
    return (
        "Before a training the policy is its own reference: the drift filter is empty, so the token term is 0 wherever "
        "critical tokens must have drifted, as in the paper. For a model in training give --reference."
    )


def _paper(measures: ProbeMeasures, verdict: Verdict) -> list[str]:
    preset = measures.preset(PAPER)
    said = [_hazard_words(hazard, measures, preset) for hazard in verdict.hazards[PAPER]]
    share = preset.advantage_share["all_wrong"]
    if share is not None:
        said.append(
            f"Under ISPO as in the paper {percent(share)} of the absolute advantage is in groups without a correct "
            "rollout, where GRPO has none."
        )
    if not verdict.hazards[PAPER]:
        groups = measures.group_counts["all_wrong"]
        if groups < MIN_GROUPS:
            few = ("No group is", "Only one group is")[groups] if groups < 2 else f"Only {groups} groups are"
            said.append(
                f"{few} without a correct rollout: what it would do in such groups cannot be said from this sample."
            )
        elif share is not None and share < ALL_WRONG_REACH:
            said.append(f"Less than {percent(ALL_WRONG_REACH)}: whatever is paid for there moves little.")
    return said


def _hazard_words(hazard: Hazard, measures: ProbeMeasures, preset: PresetMeasures) -> str:
    if hazard is Hazard.LEARNS_PRIOR:
        return (
            f"It would take {percent(preset.advantage_share['all_wrong'])} of its advantage from groups in which it "
            "compares nothing but how likely the answers are without their traces."
        )
    if hazard is Hazard.OVERTURNS:
        return (
            f"It would rank an incorrect rollout above a correct one in {percent(preset.order_violation_rate)} of the "
            "pairs of a group: its terms overturn outcomes and do not only refine them."
        )
    event, doing, what = _EVENT_OF[hazard]
    pay = pay_of(preset, event)
    how = (
        f"{pay.seen} such rollouts"
        if pay.seen
        else "computed for incorrect rollouts as if one at a time did so, since too few did"
    )
    return (
        f"It would pay for {doing}: in groups without a correct rollout {what} gets an advantage of "
        f"{signed(pay.advantage)}, an incorrect answer {signed(pay.incorrect)} ({how})."
    )


def _presets(measures: ProbeMeasures, verdict: Verdict) -> list[str]:
    names = [name for one in measures.presets for name in one.presets if name != PAPER and name not in BESIDE]
    own = [name for name in names if measures.preset(name).name == measures.preset(PAPER).name]
    others = [name for name in names if name not in own]
    free = verdict.free(others)
    noisy = [name for name in others if verdict.hazards[name] and not set(verdict.hazards[name]) & set(PAYING)]
    paying = [name for name in others if set(verdict.hazards[name]) & set(PAYING)]
    said = []
    if verdict.hazards[PAPER]:
        said.append(f"These presets would do none of this: {_list(free)}.")
        for hazard, words in (
            (Hazard.LEARNS_PRIOR, "learn from the prior over answers in groups without a correct rollout"),
            (Hazard.OVERTURNS, "rank incorrect rollouts above correct ones"),
        ):
            these = [name for name in noisy if hazard in verdict.hazards[name]]
            if these:
                said.append(f"These pay for nothing of the kind, but would {words}: {_list(these)}.")
        if paying:
            said.append(f"These would pay for some of it too: {_list(paying)}.")
    else:
        differing = [name for name in others if verdict.hazards[name]]
        if differing:
            said.append(f"These presets have something against them here (see the table): {_list(differing)}.")
    if own:
        said.append(f"On this sample the same as ISPO as in the paper: {_list(own)}.")
    for name in BESIDE:
        if any(name in one.presets for one in measures.presets):
            one = measures.preset(name)
            said.append(
                f"Beside them, {name} gives no advantage in {percent(one.zero_advantage_rate)} of the groups, and a "
                f"rollout without an answer {_mean_or_none(one)}."
            )
    return said


def _mean_or_none(preset: PresetMeasures) -> str:
    paid = preset.everywhere["missing"]
    return "is not in the sample" if paid.mean is None else f"gets {signed(paid.mean)} on average"


def _cautions(measures: ProbeMeasures) -> list[str]:
    said = []
    if measures.prompts < FEW_PROMPTS:
        said.append(
            f"Few prompts ({measures.prompts}): read every share as rough, and give --prompts {2 * FEW_PROMPTS} or "
            "more before you decide on a long training."
        )
    said.append(
        "These are the advantages of the first step. What a training makes of them is for the training's own metrics "
        "to show (ispo/answer_missing_rate, ispo/trace_dropped_rate)."
    )
    return said


def percent(share: float | None) -> str:
    """A share in whole per cent, with a decimal below 10."""
    if share is None:
        return "an unknown share"
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def interval_words(interval: Sequence[float] | None) -> str:
    """An interval in whole per cent, behind the share that it belongs to; nothing where there is none."""
    return "" if interval is None else f" [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def signed(value: float | None) -> str:
    """Two decimals and a sign."""
    if value is None:
        return "unknown"
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def count_of(number: int, thing: str) -> str:
    """A number of things."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
