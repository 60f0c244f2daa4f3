"""The report's section "What each method pays for": the numbers are the presets' on the dumped rollouts.

Derivation: a dump that the trainer's own code writes; GRPO, sign and RLOO by hand; ISPO against the advantage that the
dump holds, which was computed by the trainer's functions.

Not exercised: how it looks (test_in_chromium), the presets' rules (tests/explained).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.made_up_run import update_of, write_dump
from verl_ispo.method_presets import method_names
from verl_ispo.report.method_payments import MAX_COLUMNS, PaidGroup, method_payments
from verl_ispo.report.rollout_view import show_group
from verl_ispo.runs.rollout_dump.reader import dumped_steps, read_groups

RIGHT, WRONG, SILENT = "so 6*7 is \\boxed{42}", "I say \\boxed{41}", "I do not know"
GROUPS = [
    ("mixed?", [(RIGHT, True), (WRONG, False), (SILENT, False), (WRONG + ".", False)]),
    ("wrong?", [(WRONG, False), (SILENT, False)]),
    ("right?", [(RIGHT, True), (RIGHT + " !", True)]),
]


def paid(dump: Path) -> dict[str, PaidGroup]:
    """The groups of a dump by outcome."""
    steps = [
        (step, [show_group("run", group, 50) for group in read_groups(dump, step)[0]]) for step in dumped_steps(dump)
    ]
    return {one.shown.group.outcome: one for one in method_payments(steps)}


def row(group: PaidGroup, preset: str) -> list[str]:
    """The cells of one preset, in the order of the dump's rollouts."""
    (found,) = [row for row in group.rows if preset in row.presets.split(", ")]
    by_text = {"".join(c.rollout.token_texts): p.text for c, p in zip(group.columns, found.payments, strict=True)}
    prompt = group.shown.group.prompt_text
    return [by_text[text] for text, _ in dict(GROUPS)[prompt]]


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    write_dump(tmp_path / "dump", [update_of(1, GROUPS)])
    return tmp_path / "dump"


def test_the_numbers_are_the_presets(dump: Path) -> None:
    """One of four correct: mean 1/4, std 1/2, so +1.5 and -0.5; RLOO 1 - 0 and 0 - 1/3."""
    groups = paid(dump)
    assert row(groups["mixed"], "grpo") == ["+1.500", "-0.500", "-0.500", "-0.500"]
    assert row(groups["mixed"], "rloo") == ["+1.000", "-0.333", "-0.333", "-0.333"]
    assert row(groups["mixed"], "sign") == ["+1.000", "-1.000", "-1.000", "-1.000"]
    assert row(groups["all_wrong"], "grpo") == ["0.000", "0.000"]
    assert row(groups["all_wrong"], "sign") == ["-1.000", "-1.000"]
    assert row(groups["all_right"], "sign") == ["+1.000", "+1.000"]


def test_ispos_are_those_that_the_run_was_trained_with(dump: Path) -> None:
    for group in paid(dump).values():
        assert group.rows[0].presets == "as trained (ispo)"
        (ispo,) = [row for row in group.rows if "ispo" in row.presets.split(", ")]
        assert [cell.text for cell in ispo.payments] == [cell.text for cell in group.rows[0].payments]


def test_every_preset_is_shown_or_says_what_the_dump_lacks(dump: Path) -> None:
    for group in paid(dump).values():
        named = [name for row in group.rows[1:] for name in row.presets.split(", ")]
        named += [name for sentence in group.missing for name in sentence.split(":")[0].split(", ")]
        assert sorted(named) == sorted(method_names())
        (prompts,) = [sentence for sentence in group.missing if sentence.startswith("progrpo")]
        assert prompts.endswith("the dump lacks log-probs of the prompt.")


def set_entropy(dump: Path, rollout: int, value: float | None) -> None:
    """Another entropy of the first token of a rollout of the mixed group."""
    (file,) = (dump / "rollouts").iterdir()
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    (mixed,) = [entry for entry in entries if entry["outcome"] == "mixed"]
    mixed["rollouts"][rollout]["entropy"][0] = value
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_a_number_that_the_dump_does_not_know_leaves_out_those_who_need_it(dump: Path) -> None:
    set_entropy(dump, 0, None)
    group = paid(dump)["mixed"]
    assert row(group, "grpo") == ["+1.500", "-0.500", "-0.500", "-0.500"]
    (entropy,) = [sentence for sentence in group.missing if sentence.startswith("grpo_s")]
    assert "gtpo" in entropy
    assert "the policy's entropy" in entropy


def test_an_advantage_by_token_has_its_range_and_signs_have_shades(dump: Path) -> None:
    set_entropy(dump, 1, 1.9)
    (plus,) = [row for row in paid(dump)["mixed"].rows if "reinforce_plus_plus" in row.presets.split(", ")]
    assert {cell.spread for cell in plus.payments} == {""}
    (gtpo,) = [row for row in paid(dump)["mixed"].rows if "gtpo" in row.presets.split(", ")]
    assert any(" to " in cell.spread for cell in gtpo.payments)
    (grpo,) = [row for row in paid(dump)["mixed"].rows if "grpo" in row.presets.split(", ")]
    assert {cell.text: cell.shade for cell in grpo.payments} == {"+1.500": "up3", "-0.500": "down1"}
    (none,) = [row for row in paid(dump)["all_wrong"].rows if "grpo" in row.presets.split(", ")]
    assert {cell.shade for cell in none.payments} == {""}


def test_a_large_group_is_shown_from_both_ends(tmp_path: Path) -> None:
    many = [("q", [(f"{RIGHT}{n}", n < 5) for n in range(MAX_COLUMNS + 4)])]
    write_dump(tmp_path / "dump", [update_of(1, many)])
    (group,) = paid(tmp_path / "dump").values()
    assert [column.number for column in group.columns] == [1, 2, 3, 4, 9, 10, 11, 12]
    (grpo,) = [row for row in group.rows if "grpo" in row.presets.split(", ")]
    assert len(grpo.payments) == MAX_COLUMNS
    assert (grpo.payments[0].shade[:2], grpo.payments[-1].shade[:4]) == ("up", "down")


def test_the_latest_group_of_each_outcome_is_taken(tmp_path: Path) -> None:
    later = [("wrong?", [(WRONG, False), (SILENT, False), (WRONG + "?", False)])]
    write_dump(tmp_path / "dump", [update_of(1, GROUPS), update_of(2, later)])
    groups = paid(tmp_path / "dump")
    assert {outcome: group.step for outcome, group in groups.items()} == {"mixed": 1, "all_wrong": 2, "all_right": 1}
    assert list(groups) == ["mixed", "all_wrong", "all_right"]
