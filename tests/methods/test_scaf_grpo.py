"""Scaf-GRPO: the hinted prompts of each level, which of their rollouts is taken, and what the settings refuse.

- Levels: within a kind of hint the parts add up, and the next kind begins anew; three kinds of four parts are 12.
- The hint stands behind the last message; the messages given are not changed.
- The weakest hint behind which a rollout is correct is taken, and none where none is.
- Hints begin after the warm-up; the advantage is GRPO's.

Not exercised here: how the rollouts are written and put in place (tests/trainer, tests/training).
"""

from __future__ import annotations

import pytest
import torch

from tests.composed import composed
from verl_ispo.methods.method import MethodBatch
from verl_ispo.methods.scaf_grpo import HINT_COLUMNS, METHOD, ScafGRPOConfig, hint_texts, hinted_prompts, lowest_correct
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.refusals import UnsupportedSettingError, refuse_unsupported_settings

KNOWLEDGE, PLANNING, SOLUTION = HINT_COLUMNS


def test_parts_add_up_within_a_kind_and_the_next_kind_begins_anew() -> None:
    parts = {SOLUTION: ["do", "it"], KNOWLEDGE: ["a", "b"], PLANNING: ["p"]}
    assert hint_texts(parts, ScafGRPOConfig()) == [
        "Knowledge hints: a",
        "Knowledge hints: a b",
        "Planning hints: p",
        "Solution hints: do",
        "Solution hints: do it",
    ]
    without_planning = ScafGRPOConfig(hint_columns=[KNOWLEDGE, SOLUTION])
    assert [text.split()[0] for text in hint_texts(parts, without_planning)] == ["Knowledge"] * 2 + ["Solution"] * 2


def test_the_public_data_has_twelve_levels() -> None:
    parts = {column: ["1", "2", "3", "4"] for column in HINT_COLUMNS}
    assert len(hint_texts(parts, ScafGRPOConfig())) == 12


def test_empty_parts_and_columns_are_no_levels() -> None:
    assert hint_texts({KNOWLEDGE: ["", " a ", "\n"], PLANNING: []}, ScafGRPOConfig()) == ["Knowledge hints: a"]
    assert hint_texts({}, ScafGRPOConfig()) == []


def test_a_column_of_another_name() -> None:
    assert hint_texts({"steps": ["x"]}, ScafGRPOConfig(hint_columns=["steps"])) == ["Hints: x"]


def test_the_hint_stands_behind_the_question() -> None:
    messages = [{"role": "system", "content": "Reason."}, {"role": "user", "content": "1+1=?"}]
    found = hinted_prompts(messages, {KNOWLEDGE: ["count", "on"]}, ScafGRPOConfig())
    assert [prompt[-1] for prompt in found] == [
        {"role": "user", "content": "1+1=?\nKnowledge hints: count"},
        {"role": "user", "content": "1+1=?\nKnowledge hints: count on"},
    ]
    assert all(prompt[:-1] == messages[:-1] for prompt in found)
    assert messages[-1]["content"] == "1+1=?"


@pytest.mark.parametrize(
    ("correct", "level"),
    [([False, True, True], 1), ([True, False], 0), ([False, False, True], 2), ([False] * 3, None), ([], None)],
)
def test_the_lowest_correct_level_is_taken(correct: list[bool], level: int | None) -> None:
    assert lowest_correct(correct) == level


@pytest.mark.parametrize(("step", "begins"), [(1, False), (50, False), (51, True)])
def test_hints_begin_after_the_warm_up(step: int, begins: bool) -> None:
    assert METHOD.hinted_rollouts.begins(step, ScafGRPOConfig()) == begins


def test_the_advantage_is_grpos() -> None:
    batch = MethodBatch(
        rewards=torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
        response_mask=torch.tensor([[1, 1], [1, 0]]),
        groups=RolloutGroups.from_labels(["a", "a"]),
        grpo_advantage=torch.tensor([[0.7, 0.7], [-0.7, -0.7]]),
    )
    torch.testing.assert_close(METHOD.advantage(batch, ScafGRPOConfig()), torch.tensor([[0.7, 0.7], [-0.7, 0.0]]))


@pytest.mark.parametrize("warmup_steps", [-1, 1.5, True, "50"])
def test_the_warm_up_is_a_whole_number(warmup_steps: object) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.scaf_grpo\.warmup_steps must be a whole number from 0"):
        ScafGRPOConfig(warmup_steps=warmup_steps)


@pytest.mark.parametrize("columns", [[], "steps", ["a", "a"], ["a", ""], [3]])
def test_columns_are_different_names(columns: object) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.scaf_grpo\.hint_columns must be a list of different"):
        ScafGRPOConfig(hint_columns=columns)


def test_the_preset_has_the_defaults() -> None:
    settings = composed("method=scaf_grpo").algorithm.scaf_grpo
    assert ScafGRPOConfig.from_mapping(settings) == ScafGRPOConfig()


def test_dropping_incorrect_groups_contradicts_hints() -> None:
    config = composed("method=scaf_grpo", "algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=acc")
    with pytest.raises(UnsupportedSettingError, match=r"filter_groups\.enable=True contradict each other"):
        refuse_unsupported_settings(config)
