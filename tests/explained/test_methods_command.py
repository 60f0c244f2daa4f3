"""``verl-ispo methods``: what it says of a preset is in the preset's file, and what it shows is computed.

Not exercised: the advantages themselves (test_preset_advantage.py); that the tables of the docs are the printed ones
(tests/docs).
"""

from __future__ import annotations

import re

import pytest
import torch

from verl_ispo.cli import main
from verl_ispo.explained.example import EXAMPLE, example_batches
from verl_ispo.explained.explanation import explanation, shown_advantage
from verl_ispo.explained.listings import KINDS, kind_of, markdown_index, markdown_kinds, summary
from verl_ispo.explained.not_built import NOT_BUILT
from verl_ispo.explained.preset_advantage import preset_advantage
from verl_ispo.method_presets import method_names, preset_keys, read_preset

METHODS = method_names()


@pytest.mark.parametrize("name", METHODS)
def test_every_key_of_a_preset_has_its_value_and_a_comment(name: str) -> None:
    keys = {key.name: key for key in preset_keys(name)}
    changes = read_preset(name).changes
    assert keys.keys() == changes.keys()
    for key in keys.values():
        assert key.comment, key.name
        value = changes[key.name]
        assert key.value == (str(value).lower() if isinstance(value, bool) else key.value)
        assert not isinstance(value, (int, float)) or isinstance(value, bool) or float(key.value) == value


def test_a_key_without_a_comment_of_its_own_has_that_of_its_section_or_of_the_key_before() -> None:
    keys = {key.name.split(".")[-1]: key.comment for key in preset_keys("dapo")}
    assert keys["enable"] == keys["log"] == "Of the soft overlong punishment"
    keys = {key.name.split(".")[-1]: key.comment for key in preset_keys("gspo")}
    assert keys["clip_ratio_high"] == keys["clip_ratio_low"] == "Paper, section 5.1: 3e-4 and 4e-4"


def advantages(name: str) -> list[str]:
    """The last column of the table of a preset's explanation."""
    lines = explanation(read_preset(name)).splitlines()
    start = next(number for number, line in enumerate(lines) if "  advantage (mean" in line)
    column = lines[start].index("advantage (")
    return [line[column:] for line in lines[start + 1 : start + 1 + len(EXAMPLE)]]


@pytest.mark.parametrize("name", METHODS)
def test_an_explanation_has_rule_source_constants_cost_and_an_example(name: str) -> None:
    preset = read_preset(name)
    text = " ".join(explanation(preset).split())
    for part in (preset.about, f"source: {preset.source}", f"extra cost: {preset.extra_cost}", *preset.needs):
        assert " ".join(part.split()) in text
    for key in preset_keys(name):
        assert f"{key.name} = {key.value} {' '.join(key.comment.split())}" in text
    assert len(advantages(name)) == len(EXAMPLE)
    assert "not shown" not in text
    for known in example_batches():
        assert torch.isfinite(preset_advantage(preset, known)).all()


def test_grpo_and_sign_on_the_example_by_hand() -> None:
    """Two of four correct: mean 1/2, std sqrt(1/3), so +-0.866; verl keeps the score of a rollout alone."""
    assert advantages("grpo") == ["+0.866"] * 2 + ["-0.866"] * 2 + ["0"] * 8 + ["+1", "0"]
    assert advantages("sign") == ["+1" if rollout.correct else "-1" for rollout in EXAMPLE]
    assert "all correct: up; all incorrect: down; one rollout, correct: up" in explanation(read_preset("sign"))
    said = " ".join(explanation(read_preset("grpo")).split())
    assert "all correct: no advantage; all incorrect: no advantage; one rollout, correct: up" in said


def test_an_advantage_by_token_is_shown_with_its_range() -> None:
    assert shown_advantage(torch.tensor([0.5, 0.5])) == "+0.5"
    assert shown_advantage(torch.tensor([0.0, 1e-9])) == "0"
    assert shown_advantage(torch.tensor([-1.0, 0.0, 2.0])) == "+0.3333  (-1 .. +2)"
    assert any(".." in cell for cell in advantages("gtpo"))


def test_the_example_holds_every_outcome_and_tells_rollouts_of_one_apart() -> None:
    groups: dict[str, list] = {}
    for rollout in EXAMPLE:
        groups.setdefault(rollout.group, []).append(rollout)
    verdicts = {group: [rollout.correct for rollout in rollouts] for group, rollouts in groups.items()}
    assert verdicts == {
        "mixed": [True, True, False, False],
        "all incorrect": [False] * 4,
        "all correct": [True] * 4,
        "one rollout, correct": [True],
        "one rollout, incorrect": [False],
    }
    for rollouts in groups.values():
        assert len({(rollout.tokens, rollout.entropy) for rollout in rollouts}) == len(rollouts)


def test_every_preset_has_a_kind_and_stands_in_the_tables() -> None:
    presets = [read_preset(name) for name in METHODS]
    assert {kind_of(preset) for preset in presets} <= set(KINDS)
    listed = re.findall(r"`(\w+)`", markdown_kinds(presets))
    assert sorted(listed) == sorted(METHODS)
    index = markdown_index(presets)
    for name in METHODS:
        # a preset that only joins others has no key of its own
        assert f"(`{name}`)" in index or f"| `{name}` |" in index or not preset_keys(name, with_bases=False), name


def test_the_command_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listing = capsys.readouterr().out
    assert all(summary(read_preset(name)) in listing for name in METHODS)
    assert main(["methods", "--all"]) == 0
    everything = capsys.readouterr().out
    assert everything.startswith(listing.rstrip("\n"))
    for method in NOT_BUILT:
        assert re.search(rf"{method.name} +{method.paper or '-'} +{re.escape(method.reason)}", everything)
    assert main(["methods", "sign", "grpo"]) == 0
    out = capsys.readouterr().out
    assert out.index("sign") < out.index("\n\ngrpo\n")
    assert main(["methods", "sing"]) == 2
    assert "did you mean 'sign'" in capsys.readouterr().err


def test_what_is_not_built_is_not_a_preset() -> None:
    names = {method.name.lower().replace("-", "_") for method in NOT_BUILT}
    assert names.isdisjoint(METHODS)
    assert len(names) == len(NOT_BUILT)
    papers = [method.paper for method in NOT_BUILT if method.paper]
    assert all(re.fullmatch(r"\d{4}\.\d{5}", paper) for paper in papers)
