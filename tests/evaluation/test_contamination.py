"""The contamination probe: cut questions, what counts as knowing the rest, and a model that has read one of two sets.

Derivation: cuts and measures are worked by hand. The whole command runs on a tiny model that a few steps of training
have made to know one benchmark by heart, from its text alone, and on its server: it completes and answers that set and
not the other one.

Not exercised: a real base model and real benchmarks (their weights are not at hand); vLLM.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.fake_server import FakeServer, serving
from verl_ispo import cli
from verl_ispo.evaluation.contamination import Finding, compare
from verl_ispo.evaluation.partial_prompts import completes, rouge_l, split_question
from verl_ispo.evaluation.results import SAMPLES_NAME

KNOWN = {
    "Ada has five red apples and eats two. How many are left?": "3",
    "What is the sum of six and eight, in base ten?": "14",
    "A square has sides of length nine. Find its area.": "81",
}
FRESH = {
    "Bob buys four blue pens and loses one. How many has he?": "3",
    "Find the largest prime that is less than thirty, please.": "29",
}


def rows(problems: dict[str, str], benchmark: str) -> list[dict[str, Any]]:
    return [
        {
            "data_source": benchmark,
            "prompt": [{"role": "system", "content": "Reason."}, {"role": "user", "content": question}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {"id": f"{benchmark}-{index}", "index": index, "question": question},
        }
        for index, (question, answer) in enumerate(problems.items())
    ]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has read the questions of `KNOWN` with their answers until it knows them by heart."""
    from verl_ispo.tiny_task.base_model import build_model
    from verl_ispo.tiny_task.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0)
    texts = [f"{question}\nIt is \\boxed{{{answer}}}.<|im_end|>" for question, answer in KNOWN.items()]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    folder = tmp_path_factory.mktemp("reader") / "model"
    model.save_pretrained(folder)
    tokenizer.chat_template = None  # base models may have none, and it is not used
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def probe(reader: Path, write_benchmark: Callable[..., Path], tmp_path: Path) -> Callable[..., int]:
    """The command on both sets, with more options."""
    files = [write_benchmark(rows(KNOWN, "known"), "k.parquet"), write_benchmark(rows(FRESH, "aime26"), "f.parquet")]
    arguments = ["--model", reader, "--benchmarks", *files, "--max-new-tokens", 60]
    return lambda out, *more: cli.main(["contamination", *map(str, [*arguments, "--out", tmp_path / out, *more])])


def test_a_model_that_has_read_a_set_completes_and_answers_it_and_not_a_later_one(
    probe: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert probe("out", "--percent", 40, 80) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "out" / "contamination.md").read_text() in said
    found = json.loads((tmp_path / "out" / "contamination.json").read_text())
    scores = {(entry["benchmark"], entry["percent"]): entry for entry in found["benchmarks"]}
    assert set(scores) == {("known", 40), ("known", 80), ("aime26", 40), ("aime26", 80)}
    for share in (40, 80):
        assert scores["known", share]["exact"]["score"] == scores["known", share]["answer"]["score"] == 1.0
        assert scores["known", share]["problems"] == 3
        assert scores["aime26", share]["exact"]["score"] == scores["aime26", share]["answer"]["score"] == 0.0
    assert {(one["benchmark"], one["difference"]) for one in found["against_later"]} == {("known", 1.0)}
    assert "aime26 (later)" in said
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["options"]["n"], manifest["options"]["partial_prompts"]) == (0, [40, 80])
    assert not (tmp_path / "out" / "summary.json").exists()


def test_it_resumes_and_refuses_other_shares(probe: Callable[..., int], tmp_path: Path, capsys):
    assert probe("whole", "--percent", 60) == 0
    (tmp_path / "part").mkdir()
    for name in ("manifest.json", "questions.jsonl"):
        (tmp_path / "part" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    lines = (tmp_path / "whole" / SAMPLES_NAME).read_text().splitlines(keepends=True)
    (tmp_path / "part" / "samples.partial.jsonl").write_text("".join(lines[:2]))
    assert probe("part", "--percent", 60) == 0
    assert "Resuming: 2 of 5" in capsys.readouterr().out
    for name in (SAMPLES_NAME, "contamination.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert probe("part", "--percent", 40) == 2
    assert "options.partial_prompts: recorded [60], asked [40]" in capsys.readouterr().err


def test_a_server_gives_the_same(probe: Callable[..., int], reader: Path, tmp_path: Path):
    assert probe("here", "--percent", 60) == 0
    with serving(FakeServer(reader)) as server:
        assert probe("served", "--percent", 60, "--server", server.url) == 0
    found = [(tmp_path / name / "contamination.json").read_bytes() for name in ("here", "served")]
    assert found[0] == found[1]
    told = json.loads((tmp_path / "served" / "manifest.json").read_text())["sampler"]["prompts"]
    assert told.startswith("token ids, by the tokenizer of ")


def test_the_table_of_scores_refuses_such_a_folder(probe: Callable[..., int], tmp_path: Path, capsys):
    assert probe("out", "--percent", 60) == 0
    assert cli.main(["table", str(tmp_path / "out"), "--out", str(tmp_path / "t")]) == 2
    assert "verl-ispo contamination wrote it" in capsys.readouterr().err


def test_which_sets_are_later_is_the_users_to_say(probe: Callable[..., int], capsys):
    assert probe("out", "--percent", 60, "--later", "known") == 0
    said = capsys.readouterr().out
    assert "known (later)" in said
    assert "| aime26 | 60 % |" in said
    assert probe("out", "--percent", 60, "--later", "aime27") == 2
    assert "--later aime27: not among the benchmarks (known, aime26)" in capsys.readouterr().err
    assert probe("out", "--percent", 100) == 2
    assert "--percent 100: give different whole numbers from 1 to 99" in capsys.readouterr().err


def test_the_cut_is_between_words():
    text = "One two  three\nfour $x^2$ six seven eight nine ten?"
    assert split_question(text, 40) == ("One two  three\nfour", "$x^2$ six seven eight nine ten?")
    assert split_question(text, 80) == ("One two  three\nfour $x^2$ six seven eight", "nine ten?")
    assert split_question(text, 1) == ("One", "two  three\nfour $x^2$ six seven eight nine ten?")
    assert split_question(text, 99) == ("One two  three\nfour $x^2$ six seven eight nine", "ten?")
    assert split_question("only four short words", 40) is None


@pytest.mark.parametrize(
    ("response", "exact", "rouge"),
    [
        (" of the triangle? Let us see", True, 1.0),
        ("of\n the triangle?Let us see", True, 2 / 3),  # the last word has more behind it
        (" of the triangles? Let us see", False, 2 / 3),
        (" of a triangle?", False, 2 / 3),
        (" of the", False, 4 / 5),  # F1 of 2 of 2 and 2 of 3
        ("", False, 0.0),
        (" what of the triangle?", False, 2 / 3),  # the first three words alone are compared
    ],
)
def test_what_completes_a_question(response: str, exact: bool, rouge: float):
    assert completes(response, "of the triangle?") == exact
    assert rouge_l(response, "of the triangle?") == pytest.approx(rouge)


def test_a_longer_last_word_is_another_word():
    assert not completes("apples are", "apple")
    assert completes("apple.", "apple")
    assert completes("12", "12")
    assert not completes("123", "12")


def finding(benchmark: str, correct: int, problems: int) -> Finding:
    scores = np.array([1.0] * correct + [0.0] * (problems - correct))
    return Finding(benchmark, 60, {"exact": scores, "rouge_l": scores, "answer": scores}, 0)


def test_a_set_is_compared_with_all_later_questions_together():
    """8 of 10 against 1 of 20 in two sets. Newcombe's ends from Wilson's: 8 of 10 is in [0.490, 0.943], 1 of 20 in
    [0.009, 0.236]; 0.75 - sqrt(0.310^2 + 0.186^2) = 0.389, and 0.75 + sqrt(0.143^2 + 0.041^2) = 0.899.
    """
    differences = compare([finding("old", 8, 10), finding("l1", 1, 10), finding("l2", 0, 10)], ["l1", "l2"])
    assert [(one.benchmark, one.measure) for one in differences] == [("old", "exact"), ("old", "answer")]
    first = differences[0]
    assert first.difference == pytest.approx(0.75)
    # hypergeometric: P(8 or 9 of the 9 correct ones are among the 10) = (C(10,8)C(20,1) + C(10,9)) / C(30,9)
    assert first.p_value == pytest.approx((45 * 20 + 10) / 14307150)
    assert first.p_holm == pytest.approx(2 * first.p_value)
    assert (first.interval.low, first.interval.high) == pytest.approx((0.389, 0.899), abs=1e-3)


def test_no_completion_at_all_still_has_an_interval_of_some_width():
    [exact, _] = compare([finding("old", 0, 30), finding("l", 0, 30)], ["l"])
    assert (exact.difference, exact.p_value) == (0.0, 1.0)
    assert exact.interval.low < -0.1
    assert exact.interval.high > 0.1
