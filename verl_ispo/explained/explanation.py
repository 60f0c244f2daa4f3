"""One preset explained: its rule, source, constants and cost, and its advantages on the example's rollouts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache

import torch

from verl_ispo.explained.example import (
    ALL_CORRECT,
    ALL_INCORRECT,
    EXAMPLE,
    ONE_CORRECT,
    ONE_INCORRECT,
    example_batches,
)
from verl_ispo.explained.preset_advantage import KnownRollouts, preset_advantage, what_is_missing
from verl_ispo.method_presets import MethodPreset, PresetKey, preset_keys
from verl_ispo.methods.method import Method
from verl_ispo.methods.registry import method_of

WIDTH = 110
NEARLY_ZERO = 5e-5
"""An advantage that prints as 0.0000 counts as none."""


@cache
def _example() -> tuple[KnownRollouts, KnownRollouts]:
    return example_batches()


def explanation(preset: MethodPreset) -> str:
    """A preset on a page of a terminal."""
    missing = what_is_missing(preset, _example()[0])
    shown = [f"  not shown on an example: needs {', '.join(missing)}"] if missing else _on_the_example(preset)
    constants = preset_keys(preset.name)
    return "\n".join(
        [
            preset.name,
            *_wrapped(preset.about, "  ", "  "),
            *_wrapped(preset.source, "  source:     ", " " * 14),
            *_wrapped(preset.extra_cost, "  extra cost: ", " " * 14),
            *_wrapped(", ".join(preset.needs) or "nothing beyond rewards", "  needs:      ", " " * 14),
            *_wrapped(_what_else(method_of(preset.changes.get("algorithm.adv_estimator"))), "  also:       ", " " * 14),
            *([] if constants else ["  changes no key: it is what all methods share"]),
            *(line for key in constants for line in _constant(key)),
            *shown,
        ]
    )


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )


def _constant(key: PresetKey) -> list[str]:
    return [f"  {key.name} = {key.value}", *_wrapped(key.comment, "      ", "      ")]


def _what_else(method: Method | None) -> str:
    """What a method of this project does beside its advantage, in words."""
    if method is None:
        return ""
    parts = [
        f"rewards {method.reward}, and not the verdict" if method.reward else "",
        "brings a policy loss, which the table below does not show" if method.token_loss is not None else "",
        "its loss reads the current policy's entropy" if method.loss_needs_entropy else "",
        "its loss reads all rollouts of a prompt together" if method.whole_groups else "",
        "takes rollouts or tokens out of the loss" if method.keeps is not None else "",
        "chooses the prompts of a step" if method.prompt_choice is not None else "",
        "has rollouts with hints written for groups without a correct one" if method.hinted_rollouts else "",
        "has traces of the data among the rollouts" if method.trace_column else "",
        "keeps a state from step to step" if method.state is not None else "",
    ]
    return "; ".join(part for part in parts if part)


def _on_the_example(preset: MethodPreset) -> list[str]:
    rows = []
    for known in _example():
        masks = known.batch.response_mask.bool()
        rows += [own[mask] for own, mask in zip(preset_advantage(preset, known), masks, strict=True)]
    cells = [
        [
            rollout.group,
            "correct" if rollout.correct else "incorrect",
            str(rollout.tokens),
            f"{rollout.entropy:.1f}",
            rollout.answer or "none",
            shown_advantage(row),
        ]
        for rollout, row in zip(EXAMPLE, rows, strict=True)
    ]
    head = ["prompt", "outcome", "tokens", "entropy", "answer", "advantage (mean over tokens, smallest .. largest)"]
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    lines = [
        "    " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *cells]
    ]
    return [
        "  on made-up rollouts, of prompts with four and of prompts with one:",
        *lines,
        *_wrapped("; ".join(_single_outcomes(rows)), "  there, ", "    "),
    ]


def shown_advantage(tokens: torch.Tensor) -> str:
    """Mean over a rollout's tokens, and the range where they differ."""
    low, high = tokens.min().item(), tokens.max().item()
    text = _signed(tokens.mean().item())
    return text if high - low < NEARLY_ZERO else f"{text}  ({_signed(low)} .. {_signed(high)})"


def _signed(value: float) -> str:
    return "0" if abs(value) < NEARLY_ZERO else f"{value:+.4g}"


def _single_outcomes(rows: Sequence[torch.Tensor]) -> list[str]:
    """What the rollouts of groups with a single outcome get, read from their advantages."""
    groups = (ALL_CORRECT, ALL_INCORRECT, ONE_CORRECT, ONE_INCORRECT)
    return [
        f"{group}: {_direction(torch.cat([row for row, one in zip(rows, EXAMPLE, strict=True) if one.group == group]))}"
        for group in groups
    ]


def _direction(advantages: torch.Tensor) -> str:
    up, down = (advantages > NEARLY_ZERO).any(), (advantages < -NEARLY_ZERO).any()
    if up and down:
        return "some up, some down"
    return "up" if up else "down" if down else "no advantage"
