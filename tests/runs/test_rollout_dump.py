"""The trainer's dump: its settings, which groups it takes, what it writes, and that the reader gives it back.

Derivation: eq. 8 holds line by line (composite = outcome + weighted parts), IFD is the mean gain of the answer's
tokens, the advantage follows from the training rewards of the group. A file is either complete or absent.

Not exercised here: TransferQueue and Ray; `tests/training` runs verl's trainer with a dump.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.report.made_up_run import LetterTokenizer, update_of, write_dump
from verl_ispo import atomic_file
from verl_ispo.config import ISPOConfig, ISPOTrainerConfig
from verl_ispo.runs.rollout_dump.format import OUTCOMES
from verl_ispo.runs.rollout_dump.reader import dumped_steps, read_groups, read_outcomes
from verl_ispo.runs.rollout_dump.writer import choose_groups, describe_run, dump_step, hash_prompt, token_texts
from verl_ispo.signals.right_answer import RightAnswerScores

GROUPS = [
    ("2+2=", [("well, \\boxed{4}", True), ("no answer", False), ("\\boxed{5}", False)]),
    ("3*3=", [("\\boxed{8}", False), ("then \\boxed{7}", False)]),
    ("1+0=", [("\\boxed{1}", True), ("it is \\boxed{1.0}", True)]),
]


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.text("0123456789abcdef", min_size=4)), max_size=12), st.data())
def test_the_choice_has_every_kind_and_does_not_depend_on_the_batch_order(groups, data):
    count = data.draw(st.integers(3, 6))
    shuffled = data.draw(st.permutations(groups))

    def chosen(order: list[tuple[str, str]]) -> list[tuple[str, str]]:
        indices = choose_groups([outcome for outcome, _ in order], [prompt for _, prompt in order], count)
        assert len(indices) == len(set(indices)) == min(count, len(order))
        return [order[index] for index in indices]

    assert {outcome for outcome, _ in chosen(groups)} == {outcome for outcome, _ in groups}
    if len({prompt for _, prompt in groups}) == len(groups):
        assert chosen(groups) == chosen(shuffled)


def test_characters_over_several_tokens_stand_at_the_last_of_them():
    def decode(ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    text = "a€😀b"
    texts = token_texts(list(text.encode()), decode)
    assert texts == ["a", "", "", "€", "", "", "", "😀", "b"]
    assert token_texts(list("€".encode()[:2]), decode) == ["", "�"]
    assert len(token_texts([0xFF] * 9, decode)) == 9
    assert token_texts([], decode) == []


def test_a_line_holds_together(tmp_path: Path):
    write_dump(tmp_path, [update_of(1, GROUPS)])
    groups, gaps = read_groups(tmp_path, 1)
    assert not gaps
    assert [group.outcome for group in groups] == ["all_wrong", "mixed", "all_right"]
    assert [group.prompt_text for group in groups] == ["3*3=", "2+2=", "1+0="]
    config = ISPOConfig()
    for group in groups:
        assert group.ground_truth == "42"
        rewards = [rollout.training_reward for rollout in group.rollouts]
        for rollout in group.rollouts:
            sign = 1 if rollout.correct else -1
            assert rollout.parts["ifd"] == pytest.approx(config.ifd_weight * sign * rollout.ifd, abs=1e-5)
            assert rollout.parts["token"] == pytest.approx(config.token_weight * rollout.token_reward, abs=1e-5)
            assert rollout.composite == pytest.approx(sum(rollout.parts.values()), abs=1e-5)
            expected = (rollout.training_reward - statistics.fmean(rewards)) / statistics.stdev(rewards)
            assert rollout.advantage == pytest.approx(expected, abs=1e-3)
            assert rollout.critical == rollout.entropy_filter & rollout.drift_filter
            if rollout.answer is None:
                assert rollout.ifd == 0
                continue
            gains = zip(rollout.answer_log_prob, rollout.ablated_answer_log_prob, strict=True)
            assert rollout.ifd == pytest.approx(statistics.fmean(given - without for given, without in gains), abs=1e-5)
            lead_in, start, end = rollout.answer
            assert "".join(rollout.token_texts[lead_in:start]) == "\\boxed{"
            assert rollout.answer_log_prob == rollout.log_prob[start:end]


def test_a_prompt_with_a_hint_stands_at_its_rollout_alone(tmp_path: Path):
    """The group's name and prompt are those of the other rollouts, whichever row it is."""
    for row in (0, 1):
        update = update_of(1, [("2+2=", [("\\boxed{4}", True), ("\\boxed{5}", False)])])
        usual = update.columns["prompts"][0]
        prompts = [usual, usual]
        prompts[row] = torch.cat([usual, usual])
        write_dump(tmp_path, [replace(update, columns={**update.columns, "prompts": prompts})])
        line = json.loads((tmp_path / "rollouts/step_000001_0.jsonl").read_text())
        assert (line["prompt_id"], line["prompt_text"]) == (hash_prompt(usual.tolist()), "2+2=")
        assert [rollout.get("prompt_text") for rollout in line["rollouts"]][row] == "2+2=2+2="
        assert "prompt_text" not in line["rollouts"][1 - row]


def test_the_gain_of_the_ground_truth_is_dumped_where_it_was_scored(tmp_path: Path):
    """Null for a rollout that was not scored, and no such entry in a run that scores none."""
    update = update_of(1, GROUPS)
    scores = RightAnswerScores(
        given_trace=torch.tensor([[0.0, 0.0]] * 3 + [[-1.0, -2.0], [-4.0, 0.0]] + [[0.0, 0.0]] * 2),
        ablated=torch.tensor([[-3.0, -3.0]] * 7),
        mask=torch.tensor([[False, False]] * 3 + [[True, True], [True, False]] + [[False, False]] * 2),
        too_long=torch.zeros(7, dtype=torch.bool),
    )
    scored = replace(update, observed=replace(update.observed, right_answer=scores))
    for one, expected in ((scored, [[1.5, -1.0], [None] * 3, [None] * 2]), (update, None)):
        write_dump(tmp_path, [one])
        lines = map(json.loads, (tmp_path / "rollouts/step_000001_0.jsonl").read_text().splitlines())
        rollouts = [line["rollouts"] for line in lines]
        groups, gaps = read_groups(tmp_path, 1)
        assert not gaps
        assert [len(group.rollouts) for group in groups] == [2, 3, 2]
        if expected is None:
            assert not any("right_answer_gain" in rollout for group in rollouts for rollout in group)
            assert all(rollout.right_answer_gain is None for group in groups for rollout in group.rollouts)
        else:
            assert [[rollout["right_answer_gain"] for rollout in group] for group in rollouts] == expected
            assert [[rollout.right_answer_gain for rollout in group.rollouts] for group in groups] == expected


@pytest.mark.parametrize(
    ("answer_span", "answer", "stop"),
    [("content", "4", "2+2="), ("marked", "\\boxed{4}", "2+2="), ("sentence", "so \\boxed{4}", "2+2=")],
)
def test_what_was_scored_is_what_is_dumped(tmp_path: Path, answer_span: str, answer: str, stop: str):
    """The report's table joins the tokens from answer_start to answer_end with their log-probs."""
    config = ISPOConfig(answer_span=answer_span, trace_end="first_statement")
    write_dump(tmp_path, [update_of(1, [("q", [("2+2=4. so \\boxed{4}", True), ("\\boxed{5}", False)])], config)])
    line = json.loads((tmp_path / "rollouts" / "step_000001_0.jsonl").read_text())
    first, second = line["rollouts"]
    text = "".join(first["token_texts"])
    assert text[first["answer_start"] : first["answer_end"]] == answer
    assert text[: first["trace_end"]] == stop
    assert second["trace_end"] == second["lead_in_start"] == 0
    (group,), _ = read_groups(tmp_path, 1)
    assert len(group.rollouts[0].answer_log_prob) == len(answer)


def test_outcomes_are_written_at_every_step_and_rollouts_at_some(tmp_path: Path):
    write_dump(tmp_path, [update_of(step, GROUPS) for step in (1, 2, 3, 4)], every=3)
    assert dumped_steps(tmp_path) == [1, 3]
    outcomes, gaps = read_outcomes(tmp_path)
    assert not gaps
    assert {outcome.step for outcome in outcomes} == {1, 2, 3, 4}
    first = {outcome.prompt_id: (outcome.right, outcome.rollouts) for outcome in outcomes if outcome.step == 1}
    assert first == {
        hash_prompt(list(map(ord, prompt))): (sum(is_correct for _, is_correct in members), len(members))
        for prompt, members in GROUPS
    }


def test_two_writes_of_one_step_are_the_same_bytes(tmp_path: Path):
    contents = []
    for _ in range(2):
        write_dump(tmp_path, [update_of(1, GROUPS)])
        contents.append((tmp_path / "rollouts" / "step_000001_0.jsonl").read_bytes())
    assert contents[0] == contents[1]


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dump = write_dump(tmp_path, [])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        dump_step(dump, ISPOConfig(), LetterTokenizer(), update_of(1, GROUPS))
    assert list((tmp_path / "outcomes").iterdir()) == []
    assert list((tmp_path / "rollouts").iterdir()) == []


def test_a_folder_that_cannot_be_written_stops_the_run_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"trainer\.v1\.ispo\.dump_dir=.*cannot be written.*or null for no dump"):
        describe_run(ISPOTrainerConfig(dump_dir=str(tmp_path / "file" / "dump")), OmegaConf.create({}))


def test_the_description_has_versions_and_seeds_and_no_secrets(tmp_path: Path):
    write_dump(
        tmp_path,
        [],
        ray_kwargs={"ray_init": {"runtime_env": {"env_vars": {"HF_TOKEN": "hf_secret"}}}},
        tracking={"api_key": "key_secret", "max_tokens": 5, "hub": [{"password": "pass_secret"}]},
    )
    text = (tmp_path / "run.json").read_text()
    description = json.loads(text)
    assert "secret" not in text
    assert description["config"]["tracking"] == {
        "api_key": "(masked)",
        "max_tokens": 5,
        "hub": [{"password": "(masked)"}],
    }
    assert description["seeds"] == {"data.seed": 7}
    assert {"python", "torch", "verl_ispo"} <= description["versions"].keys()
    assert os.stat(tmp_path / "run.json").st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda group: group.update(format=99), "format 99, this report reads 1"),
        (lambda group: group.pop("prompt_text"), "'prompt_text' is missing"),
        (lambda group: group.update(outcome="odd"), "outcome 'odd' is not one of"),
        (lambda group: group.update(rollouts=[]), "a group without rollouts"),
        (lambda group: group["rollouts"][0]["entropy"].pop(), r"entropy has \d+ entries for \d+ tokens"),
        (lambda group: group["rollouts"][0].update(critical=[10**6]), "critical holds something else than positions"),
        (lambda group: group["rollouts"][0].update(answer_end=10**6), r"answer positions \(.*\) do not fit"),
        (lambda group: group["rollouts"][0].update(advantage="1"), "advantage holds something else than numbers"),
        (lambda group: group["rollouts"][0].update(token_texts=[3]), "token_texts holds something else than text"),
    ],
)
def test_damaged_lines_are_left_out_with_their_reason(tmp_path: Path, damage, reason: str):
    write_dump(tmp_path, [update_of(1, GROUPS)])
    file = tmp_path / "rollouts" / "step_000001_0.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    damage(lines[0])
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + "not json\n")
    groups, gaps = read_groups(tmp_path, 1)
    assert len(groups) == len(lines) - 1
    assert len(gaps) == 2
    assert gaps[0].startswith("step_000001_0.jsonl, line 1 left out: ")
    assert re.search(reason, gaps[0])
