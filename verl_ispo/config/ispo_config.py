"""``ISPOConfig``: every constant of the method, checked, with the paper's values as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from verl_ispo.answers.answer_place import ANSWER_FORMATS, markers_of
from verl_ispo.config.section import check_choice, check_number, from_section, refuse_unknown_keys

CRITICAL_SELECTIONS = ("intersection", "union", "entropy", "drift")
ALL_WRONG_MODES = ("paper", "token_only", "off", "informative", "right_answer")
ALL_RIGHT_MODES = ("paper", "token_only", "off")
MISSING_ANSWER_MODES = ("zero", "group_min")
IFD_REFERENCES = ("none", "running_mean", "right_rollouts")
SAME_OUTCOME_STDS = ("own", "one_success")
ANSWER_SPANS = ("content", "marked", "sentence")
TRACE_ENDS = ("lead_in", "first_statement")


SECTION = "algorithm.ispo"


@dataclass(frozen=True)
class ISPOConfig:
    """Settings of ISPO; the defaults are the paper's (arXiv 2606.08815), literally.

    Args:
        ifd_weight (`float`, *optional*, defaults to `0.5`):
            lambda_1 of eq. 8, the weight of Conditional IFD. `0` switches the sequence signal off.
        token_weight (`float`, *optional*, defaults to `0.1`):
            lambda_2 of eq. 8, the weight of the token reward. `0` switches the token signal off.
        top_entropy_fraction (`float`, *optional*, defaults to `0.1`):
            k of eq. 4: the share of a response's tokens, by entropy, that the entropy filter keeps. In (0, 1].
        drift_threshold (`float`, *optional*, defaults to `0.3`):
            tau_drift of eq. 5, in nats: least log-prob gain over the reference policy at the sampled token.
        entropy_floor (`float`, *optional*, defaults to `0.3`):
            tau_H of eq. 7, in nats: below it, entropy on an incorrect rollout's critical tokens is punished.
        entropy_bonus (`float`, *optional*, defaults to `1.0`):
            alpha of eq. 7, the reward for entropy on an incorrect rollout's critical tokens.
        hinge_weight (`float`, *optional*, defaults to `1.0`):
            beta of eq. 7, the weight of the hinge under `entropy_floor`. `0` is the paper's "no hinge" ablation.
        critical_selection (`str`, *optional*, defaults to `"intersection"`):
            Which tokens are critical: `"intersection"` of both filters (paper), their `"union"`, or one filter
            alone, `"entropy"` or `"drift"` (the paper's ablations).
        symmetric_token_reward (`bool`, *optional*, defaults to `False`):
            The paper's "symmetric" ablation. The paper gives no formula; in ours an incorrect rollout gets the
            negative of what a correct one would get.
        answer_format (`str`, *optional*, defaults to `"auto"`):
            Which markers give the answer A: the last `\\boxed{}` (`"boxed"`), an `Answer:` line (`"answer_line"`),
            `"hashes"`, `"answer_tag"`, `"sentence"`, `"heading"`, `"chinese"`, several of them joined by `+`, or all
            of them (`"auto"`), unless the row's `extra_info.answer_format` says less; as in the grader.
            Ours, in detail in `verl_ispo.answers.answer_place`: the paper does not say.
        answer_span (`str`, *optional*, defaults to `"content"`):
            Ours. What A is, where the answer is known: the content of its marker (`"content"`), the marker from
            `\\boxed{` to its closing brace (`"marked"`), or the sentence or line that holds the marker, up to there
            (`"sentence"`). Only the first one has a lead-in that is given and not scored.
        trace_end (`str`, *optional*, defaults to `"lead_in"`):
            Ours. Where T ends: before the lead-in (`"lead_in"`), or before the first statement of the answer in the
            response (`"first_statement"`), so that copying what was already said does not count as knowing it.
        min_group_std (`float`, *optional*, defaults to `0.0`):
            Ours. A floor under the group's standard deviation, in units of reward; `0` is the paper.
        all_wrong_groups (`str`, *optional*, defaults to `"paper"`):
            Ours. What a group without any correct rollout learns from: `"paper"` (eq. 8), `"token_only"`, `"off"`
            (the score alone, as GRPO: no advantage where scores are equal), `"informative"` (IFD enters with a
            plus sign, so that reasoning stays alive) or `"right_answer"` (in place of IFD, how much the trace raises
            the log-prob of the ground truth, with a plus sign; one forward more over the rollouts of those groups, and
            a rollout without an answer gets its group's lowest composite reward).
        all_right_groups (`str`, *optional*, defaults to `"paper"`):
            Ours. The same for groups without any incorrect rollout: `"paper"`, `"token_only"` or `"off"`.
        missing_answer (`str`, *optional*, defaults to `"zero"`):
            Ours. A rollout without an answer has no IFD (`"zero"`), or gets its group's lowest composite reward
            (`"group_min"`).
        max_abs_ifd (`float`, *optional*):
            Ours. Clips IFD, and the gain of `all_wrong_groups="right_answer"`, to [-max_abs_ifd, max_abs_ifd] nats per
            token. Off by default, as in the paper.
        min_right_answer_gain (`float`, *optional*):
            Ours. Least gain, in nats per token, that `all_wrong_groups="right_answer"` reads. With `0` a trace that
            lowers the log-prob of the ground truth counts as no trace, so that leaving the trace out is never paid
            more. Off by default.
        exclude_answer_from_critical (`bool`, *optional*, defaults to `False`):
            Ours. Keeps the answer's tokens and the end-of-sequence token out of the entropy filter.
        ifd_reference (`str`, *optional*, defaults to `"none"`):
            Ours. What IFD is compared with: nothing (`"none"`, the paper), its running mean by outcome, which is
            subtracted (`"running_mean"`), or the running mean of correct rollouts, which caps it
            (`"right_rollouts"`). The means are over the steps before, so the first step is the paper's. The gain of
            `all_wrong_groups="right_answer"` is compared with nothing.
        ifd_running_decay (`float`, *optional*, defaults to `0.9`):
            Ours. Decay per step of those running means. In [0, 1).
        same_outcome_std (`str`, *optional*, defaults to `"own"`):
            Ours. What the advantage of a group whose outcomes are all equal is divided by: the group's own standard
            deviation (`"own"`, the paper) or that of one success among its G rollouts, 1 / sqrt(G)
            (`"one_success"`), so that small differences stay small.

    Raises:
        UnknownISPOKeyError: a key that is not listed above; the message names the nearest one.
        ValueError: a value outside its range; the message names key, value and range.
    """

    ifd_weight: float = 0.5
    token_weight: float = 0.1
    top_entropy_fraction: float = 0.1
    drift_threshold: float = 0.3
    entropy_floor: float = 0.3
    entropy_bonus: float = 1.0
    hinge_weight: float = 1.0
    critical_selection: str = "intersection"
    symmetric_token_reward: bool = False
    answer_format: str = "auto"
    answer_span: str = "content"
    trace_end: str = "lead_in"
    min_group_std: float = 0.0
    all_wrong_groups: str = "paper"
    all_right_groups: str = "paper"
    missing_answer: str = "zero"
    max_abs_ifd: float | None = None
    min_right_answer_gain: float | None = None
    exclude_answer_from_critical: bool = False
    ifd_reference: str = "none"
    ifd_running_decay: float = 0.9
    same_outcome_std: str = "own"

    def __new__(cls, *args: Any, **kwargs: Any) -> ISPOConfig:
        # Before the generated __init__, whose TypeError would not name the nearest key.
        refuse_unknown_keys(kwargs, [field.name for field in fields(cls)], SECTION)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name in ("ifd_weight", "token_weight", "entropy_floor", "entropy_bonus", "hinge_weight", "min_group_std"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0.0)
        check_number(f"{SECTION}.drift_threshold", self.drift_threshold)
        check_number(f"{SECTION}.top_entropy_fraction", self.top_entropy_fraction, low=0.0, high=1.0, low_open=True)
        check_number(f"{SECTION}.ifd_running_decay", self.ifd_running_decay, low=0.0, high=1.0, high_open=True)
        if self.max_abs_ifd is not None:
            check_number(f"{SECTION}.max_abs_ifd", self.max_abs_ifd, low=0.0, low_open=True)
        if self.min_right_answer_gain is not None:
            check_number(f"{SECTION}.min_right_answer_gain", self.min_right_answer_gain)
        for name in ("symmetric_token_reward", "exclude_answer_from_critical"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{SECTION}.{name} must be true or false, got {getattr(self, name)!r}")
        check_choice(f"{SECTION}.critical_selection", self.critical_selection, CRITICAL_SELECTIONS)
        try:
            markers_of(self.answer_format)
        except ValueError:
            # As for every other choice; several markers may also be joined by +.
            check_choice(f"{SECTION}.answer_format", self.answer_format, tuple(ANSWER_FORMATS))
        check_choice(f"{SECTION}.answer_span", self.answer_span, ANSWER_SPANS)
        check_choice(f"{SECTION}.trace_end", self.trace_end, TRACE_ENDS)
        check_choice(f"{SECTION}.all_wrong_groups", self.all_wrong_groups, ALL_WRONG_MODES)
        check_choice(f"{SECTION}.all_right_groups", self.all_right_groups, ALL_RIGHT_MODES)
        check_choice(f"{SECTION}.missing_answer", self.missing_answer, MISSING_ANSWER_MODES)
        check_choice(f"{SECTION}.ifd_reference", self.ifd_reference, IFD_REFERENCES)
        check_choice(f"{SECTION}.same_outcome_std", self.same_outcome_std, SAME_OUTCOME_STDS)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> ISPOConfig:
        """Build from a mapping such as Hydra's ``algorithm.ispo``; `None` gives the defaults."""
        return from_section(cls, SECTION, settings)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a plain dict, for logs."""
        return asdict(self)
