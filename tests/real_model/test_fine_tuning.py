"""Supervised steps: the loss is on the solution and the end of its turn alone, and the folder appears when it is whole.

On the tiny task's random model; the reference loss is a plain cross entropy over the positions that count.

Not exercised: a real model (examples/real_model.sh), a GPU.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

from verl_ispo.real_model.fine_tuning import NO_LOSS, PROBLEMS_PER_STEP, fine_tune, lesson_tokens, main
from verl_ispo.tiny_task.base_model import build_model
from verl_ispo.tiny_task.tokenizer import build_tokenizer
from verl_ispo.user_error import UserError

MESSAGES = [{"role": "user", "content": "2+3="}, {"role": "assistant", "content": "5;\\boxed{5}"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    build_model(tokenizer, seed=0).save_pretrained(folder)
    return folder


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    path = tmp_path / "lessons.jsonl"
    path.write_text((json.dumps({"messages": MESSAGES}) + "\n") * PROBLEMS_PER_STEP)
    return path


def test_labels_are_the_solution_and_its_end() -> None:
    tokenizer = build_tokenizer()
    tokens = lesson_tokens(tokenizer, MESSAGES)
    assert bytes(tokens["input_ids"][:-1]).decode() == "2+3=5;\\boxed{5}"
    assert tokens["input_ids"][-1] == tokenizer.eos_token_id
    assert tokens["labels"] == [NO_LOSS] * 4 + tokens["input_ids"][4:]


@pytest.mark.parametrize("pad", ["<|endoftext|>", "<|im_end|>"])
def test_the_end_of_a_turn_is_taught_also_where_it_is_the_padding(pad: str) -> None:
    """Padding that is the end of sequence has cost many trainers that label: their models never stop."""
    tokenizer = build_tokenizer()
    tokenizer.pad_token = pad
    longer = [MESSAGES[0], {"role": "assistant", "content": MESSAGES[1]["content"] + " and more"}]
    rows = [lesson_tokens(tokenizer, messages) for messages in (MESSAGES, longer)]
    labels = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=NO_LOSS)(rows)["labels"]
    assert (labels == tokenizer.eos_token_id).sum(dim=1).tolist() == [1, 1]
    assert (labels != NO_LOSS).sum(dim=1).tolist() == [len(row["labels"]) - 4 for row in rows]


def test_a_model_without_a_padding_token_is_taught(model: Path, lessons: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings["pad_token"] = None
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    assert AutoTokenizer.from_pretrained(bare).pad_token is None
    fine_tune(str(bare), lessons, tmp_path / "out", 1, 0)
    assert (tmp_path / "out/model.safetensors").exists()


def solution_loss(folder: Path) -> float:
    tokens = lesson_tokens(AutoTokenizer.from_pretrained(folder), MESSAGES)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        log_probs = policy(torch.tensor([tokens["input_ids"]])).logits[0].log_softmax(-1)
    targets = torch.tensor(tokens["input_ids"])
    return float(-log_probs[3:-1].gather(-1, targets[4:, None]).mean())


def test_steps_lower_the_loss_on_the_solution(model: Path, lessons: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--model", str(model), "--lessons", str(lessons), "--out", str(out), "--steps", "4"]) == 0
    assert solution_loss(out) < solution_loss(model) - 0.01
    assert AutoTokenizer.from_pretrained(out).eos_token == "<|im_end|>"
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("out", "lessons.jsonl")] == []
    assert not (out / "trainer").exists()
    before = (out / "model.safetensors").stat().st_mtime_ns
    fine_tune(str(model), lessons, out, 4, 0)
    assert (out / "model.safetensors").stat().st_mtime_ns == before, "what is there is used again"


def test_a_failure_leaves_no_folder(
    model: Path, lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.Trainer.train", killed)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(str(model), lessons, tmp_path / "out", 4, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["lessons.jsonl"]


def test_a_model_that_cannot_be_taught_is_refused_with_the_remedy(model: Path, lessons: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    with pytest.raises(UserError, match="has no chat template; take an instruct model, or SFT_STEPS=0"):
        fine_tune(str(bare), lessons, tmp_path / "out", 4, 0)
    few = tmp_path / "few.jsonl"
    few.write_text(lessons.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="1 lessons; give at least 16"):
        fine_tune(str(model), few, tmp_path / "out", 4, 0)
