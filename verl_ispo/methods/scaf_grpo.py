"""Scaf-GRPO (arXiv 2510.19807): a group without a correct rollout gets one that was written with a hint in its prompt.

    prompt of level k = prompt + the first parts of a hint;  o_1 <- the correct rollout of the lowest k, with its prompt

For each such group, once the first steps are over, one rollout is written for every level: the first part of a kind of
hint, the first two, and so on; then the next kind, which begins anew. The rollout of the lowest level that is correct
takes the place of the group's first one. It keeps its hinted prompt, under which old and new log-probs are computed.
The advantage is verl's own GRPO.

Source: the paper's text for three kinds (knowledge, planning, solution); the authors' code
(dvlab-research/Scaf-GRPO at 1085db539b92) has the planning hints commented out, so 8 levels instead of 12. Ours: the
words around a hint; the hint stands behind the data's own prompt, where the authors build a prompt of their own; levels
whose prompt is longer than ``data.max_prompt_length`` are left out; fewer or more than four parts are allowed.

All-correct groups get nothing, as under GRPO; all-incorrect ones get a gradient where some level is correct. A rollout
alone in its group is replaced too, and then has GRPO's advantage of a single rollout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_whole_number, from_section
from verl_ispo.methods.method import Contradiction, HintedRollouts, Lookup, Message, Method, MethodBatch, Need

SECTION = "algorithm.scaf_grpo"
# Columns of the public data set hkuzxc/scaf-grpo-dataset, from the weakest hint to the strongest.
HINT_COLUMNS = ("knowledge_components_parts", "planning_skeleton_parts", "solution_breakdown_parts")
# What a prompt says before the parts of a column. Ours; columns of other names are called hints.
LABELS = dict(zip(HINT_COLUMNS, ("Knowledge hints", "Planning hints", "Solution hints"), strict=True))


@dataclass(frozen=True)
class ScafGRPOConfig:
    """Settings of Scaf-GRPO, the keys of ``algorithm.scaf_grpo``.

    Args:
        warmup_steps (`int`, *optional*, defaults to `50`):
            Steps without hints at the start of the training. Authors' script.
        hint_columns (`Sequence[str]`, *optional*):
            Columns of the data with the parts of a hint, each a list of texts, from the weakest kind to the strongest.
            Defaults to the three kinds of the paper.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    warmup_steps: int = 50
    hint_columns: Sequence[str] = HINT_COLUMNS

    def __post_init__(self) -> None:
        check_whole_number(f"{SECTION}.warmup_steps", self.warmup_steps)
        names = [] if isinstance(self.hint_columns, str) else list(self.hint_columns)
        if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ValueError(
                f"{SECTION}.hint_columns must be a list of different column names, at least one, "
                f"got {self.hint_columns!r}"
            )
        object.__setattr__(self, "hint_columns", tuple(names))

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> ScafGRPOConfig:
        """Build from Hydra's ``algorithm.scaf_grpo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def hint_texts(parts: Mapping[str, Sequence[str]], config: ScafGRPOConfig) -> list[str]:
    """The text of each level, from the weakest hint to the strongest.

    Args:
        parts (`Mapping[str, Sequence[str]]`): by column; empty parts are left out, and so is a column that is missing.
        config (`ScafGRPOConfig`).
    """
    texts = []
    for column in config.hint_columns:
        given = [part.strip() for part in parts.get(column, ()) if part.strip()]
        label = LABELS.get(column, "Hints")
        texts += [f"{label}: {' '.join(given[:count])}" for count in range(1, len(given) + 1)]
    return texts


def hinted_prompts(
    messages: Sequence[Message], parts: Mapping[str, Sequence[str]], config: ScafGRPOConfig
) -> list[list[Message]]:
    """The prompt of each level: the hint on a line of its own behind the last message.

    Args:
        messages (`Sequence[Message]`): the prompt, with ``role`` and ``content``.
        parts, config: as in `hint_texts`.
    """
    *before, last = messages
    return [
        [*map(dict, before), {**last, "content": f"{last['content']}\n{text}"}] for text in hint_texts(parts, config)
    ]


def lowest_correct(correct: Sequence[bool]) -> int | None:
    """Index of the weakest hint behind which the rollout is correct; `None` where none is."""
    return next((level for level, is_correct in enumerate(correct) if is_correct), None)


def contradictions(setting: Lookup) -> Iterator[Contradiction]:
    """What takes all-incorrect groups out of the step before hints could change them."""
    filter_key = "algorithm.filter_groups.enable"
    if setting(filter_key):
        yield Contradiction(
            "algorithm.adv_estimator",
            filter_key,
            "the filter drops the groups without a correct rollout before they could get one with a hint",
            f"Set {filter_key}=false.",
        )


def _advantage(batch: MethodBatch, config: ScafGRPOConfig) -> torch.Tensor:
    return torch.where(batch.response_mask.bool(), batch.grpo_advantage, 0.0)


METHOD = Method(
    name="scaf_grpo",
    advantage=_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    settings=ScafGRPOConfig.from_mapping,
    hinted_rollouts=HintedRollouts(
        columns=lambda config: config.hint_columns,
        begins=lambda step, config: step > config.warmup_steps,
        prompts=hinted_prompts,
        choose=lowest_correct,
    ),
    contradictions=contradictions,
)
