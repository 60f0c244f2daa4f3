"""All presets at once: a few lines each, and the tables of the docs, which are generated from the presets' files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from verl_ispo.explained.not_built import NOT_BUILT
from verl_ispo.method_presets import MethodPreset, PresetKey, preset_keys
from verl_ispo.methods.method import Need
from verl_ispo.methods.registry import method_of

LOSS_KEY = "actor_rollout_ref.actor.policy_loss.loss_mode"
VERLS_OWN, ISPO = "verl's own rules", "ISPO and its variants"
OTHER_LOSS, OTHER_CHOICE, OTHER_ADVANTAGE = "another loss", "another choice of rollouts", "another advantage"
OTHER_REWARD = "another reward"
KINDS = (VERLS_OWN, OTHER_ADVANTAGE, OTHER_LOSS, OTHER_CHOICE, OTHER_REWARD, ISPO)
_NAME = re.compile(r"^(.{1,40}?),? (?:arXiv )?\(?\d{4}\.\d{5}")
_PAPER = re.compile(r"(?:arXiv )?(?<![\d/])(\d{4}\.\d{5})(?!\d)")


def kind_of(preset: MethodPreset) -> str:
    """What a preset replaces; one of `KINDS`."""
    method = method_of(preset.changes.get("algorithm.adv_estimator"))
    if method is None:
        return VERLS_OWN
    if Need.ISPO_SIGNALS in method.needs:
        return ISPO
    if method.reward is not None:
        return OTHER_REWARD
    if method.token_loss is not None:
        return OTHER_LOSS
    chooses = (method.prompt_choice, method.keeps, method.hinted_rollouts)
    return OTHER_CHOICE if any(part is not None for part in chooses) else OTHER_ADVANTAGE


def summary(preset: MethodPreset) -> str:
    """A preset in a few lines."""
    changes = [f"{key}={_as_override(value)}" for key, value in preset.changes.items()]
    return "\n".join(
        [
            preset.name,
            *(textwrap.wrap(preset.about, 110, initial_indent="  ", subsequent_indent="  ")),
            f"  source:     {preset.source}",
            f"  extra cost: {preset.extra_cost}",
            *([f"  needs:      {', '.join(preset.needs)}"] if preset.needs else []),
            *(f"  {'changes:' if not index else ''}".ljust(14) + change for index, change in enumerate(changes)),
        ]
    )


def not_built() -> str:
    """The methods that are not here, with the reasons."""
    width = max(len(method.name) for method in NOT_BUILT)
    lines = [f"  {method.name.ljust(width)}  {method.paper or '-':10}  {method.reason}" for method in NOT_BUILT]
    return "\n".join(["not built (name, arXiv number, reason):", *lines])


def markdown_table(presets: Sequence[MethodPreset]) -> str:
    """All presets as a table, one row each."""
    rows = [
        f"| `{preset.name}` | {_escaped(preset.about)} | {_escaped(preset.source)} "
        f"| {', '.join(preset.needs) or 'nothing'} | {_escaped(preset.extra_cost)} |"
        for preset in presets
    ]
    head = [
        "| `method=` | what it is | source of the rule | needs of a batch | extra cost beside GRPO |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def markdown_kinds(presets: Sequence[MethodPreset]) -> str:
    """The presets' names by what they replace, a row for each kind."""
    rows = [f"| {kind} | {' '.join(names)} |" for kind, names in _by_kind(presets).items()]
    return "\n".join(["| group | presets |", "|---|---|", *rows])


def _by_kind(presets: Sequence[MethodPreset]) -> dict[str, list[str]]:
    names = {kind: [f"`{preset.name}`" for preset in presets if kind_of(preset) == kind] for kind in KINDS}
    return {kind: of_kind for kind, of_kind in names.items() if of_kind}


def markdown_index(presets: Sequence[MethodPreset]) -> str:
    """Each key that a preset changes, with its value and source: a section per method, and one table for ISPO's."""
    sections = [_section(preset) for preset in presets if kind_of(preset) != ISPO]
    rows = [
        f"| `{preset.name}` | {_row(key)}"
        for preset in presets
        if kind_of(preset) == ISPO
        for key in preset_keys(preset.name, with_bases=False)
    ]
    together = "\n".join(
        [
            "### ISPO and its combinations",
            "",
            "Presets that build on others have the others' keys too: `verl-ispo methods NAME` prints them all.",
            "",
            "| preset | key | value | where it is from |",
            "|---|---|---|---|",
            *rows,
        ]
    )
    return "\n\n".join([*sections, *([together] if rows else [])])


def _section(preset: MethodPreset) -> str:
    found = _NAME.match(preset.about)
    title = f"{found[1]} (`{preset.name}`)" if found else f"`{preset.name}` (`{preset.name}`)"
    about = _PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", _escaped(preset.about))
    keys = preset_keys(preset.name)
    table = ["", "| key | value | where it is from |", "|---|---|---|", *(f"| {_row(key)}" for key in keys)]
    text = textwrap.wrap(
        f"{about} Source: {_escaped(preset.source)}.", 120, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join([f"### {title}", "", *text, *(table if keys else ["Changes no key."])])


def _row(key: PresetKey) -> str:
    value = f"`{key.value}`" if set(key.value) & set("$\\\\{*<") else key.value
    return f"`{key.name}` | {value} | {_escaped(key.comment)} |"


def _escaped(text: str) -> str:
    """A comment of a preset in a Markdown table."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _as_override(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
