"""scripts/gpu/random_model.py, with a small shape: it loads as any model, and its samples contain answers.

That nearly every response contains an answer of the requested length is checked on drawn tokens. Not exercised: the
full shape's weights, whose number is counted from its config (tests/preflight/test_model_shape.py).
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from tests.scripts.launchers import SCRIPTS
from verl_ispo.answers.answer_place import BOXED
from verl_ispo.preflight.scorer import asked_formats
from verl_ispo.signals.answer_span import find_answer_spans
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.tiny_task.reward import compute_score

RANDOM_MODEL = runpy.run_path(str(SCRIPTS / "gpu/random_model.py"))
VOCAB = 8192
SMALL = [
    *("hidden_size=32", "intermediate_size=64", "num_hidden_layers=2", "num_attention_heads=4"),
    *("num_key_value_heads=2", f"vocab_size={VOCAB}"),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("random")
    assert RANDOM_MODEL["main"](["--out", str(out), "--rows", "40", "--size", *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def tokenizer(out: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(out / "model")


def test_it_has_the_presets_context_and_otherwise_the_published_shape(out: Path) -> None:
    config = json.loads((out / "model/config.json").read_text())
    assert config["max_position_embeddings"] == 6144
    assert config["rope_parameters"]["rope_theta"] == 15000.0
    assert config["tie_word_embeddings"] is True
    assert (config["hidden_size"], config["vocab_size"], config["dtype"]) == (32, VOCAB, "bfloat16")


def test_it_generates_and_every_token_can_be_decoded(out: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Add: 1 + 2.\n"}], add_generation_prompt=True, return_dict=False
    )
    torch.manual_seed(0)
    given = torch.tensor([prompt] * 16)
    written = model.generate(given, do_sample=True, top_k=0, max_new_tokens=48, min_new_tokens=48)[:, len(prompt) :]
    assert written.shape == (16, 48)
    assert len(set(written.flatten().tolist())) > 300, "all of the vocabulary is sampled"
    assert len(tokenizer) == VOCAB
    special = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|im_start|>")}
    assert special == set(range(VOCAB - 3, VOCAB))
    assert all(tokenizer.decode([token]) for token in range(256, VOCAB))


def test_prompts_are_read_byte_by_byte(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "300\\boxed{ 304 é}\n"
    assert tokenizer(text)["input_ids"] == list(text.encode())
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_samples_contain_answers_of_the_requested_length(tokenizer: PreTrainedTokenizerBase) -> None:
    """On tokens drawn uniformly, as random weights draw them."""
    generator = torch.Generator().manual_seed(0)
    responses = torch.randint(256, VOCAB - 3, (400, 1024), generator=generator).tolist()
    texts = TokenTexts(lambda token: tokenizer.decode([token], clean_up_tokenization_spaces=False))
    spans = find_answer_spans(responses, texts)
    assert spans.found.float().mean() > 0.99
    # At each token a brace closes with 1/8 and a box opens with 1/128: it lasts 1 / (1/8 - 1/128) = 8.5 tokens.
    assert 7.5 < spans.length[spans.found].float().mean() < 9.5
    assert (spans.start - spans.lead_in_start)[spans.found].unique().tolist() == [1], "the token that opens the box"
    assert spans.lead_in_start[spans.found].float().mean() > 800, "there is a trace to drop"


def test_problems_are_rows_that_the_preflight_and_a_scorer_take(out: Path) -> None:
    rows = pyarrow.parquet.read_table(out / "data/train.parquet").to_pylist()
    assert len(rows) == 40
    lengths = [len(row["prompt"][0]["content"]) for row in rows]
    assert 128 <= min(lengths) < 256 < max(lengths) < 400
    assert all(asked_formats(row["prompt"]) == {BOXED} for row in rows)
    truth = rows[0]["reward_model"]["ground_truth"]
    assert compute_score("made_sums", f"\\boxed{{{truth}}}", truth)["score"] == 1


def test_the_same_seed_gives_the_same_model(out: Path, tmp_path: Path) -> None:
    assert RANDOM_MODEL["main"](["--out", str(tmp_path), "--rows", "40", "--size", *SMALL]) == 0
    for file in ("model/model.safetensors", "model/tokenizer.json", "data/train.parquet"):
        assert (tmp_path / file).read_bytes() == (out / file).read_bytes(), file


def test_a_local_tokenizer_can_be_given(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--out", str(tmp_path), "--tokenizer", str(out / "model"), "--size", *SMALL]
    assert RANDOM_MODEL["main"](given) == 0
    assert RANDOM_MODEL["main"]([*given, "vocab_size=100"]) == 2
    assert f"has {VOCAB} ids, the model 100" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--size", "layers=2"], "num_hidden_layers"),
        (["--size", "num_hidden_layers"], "give KEY=NUMBER"),
        (["--answer-tokens", "0"], "--answer-tokens 1"),
        (["--prompt-bytes", "20"], "--prompt-bytes 128"),
    ],
)
def test_invalid_options_are_named(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RANDOM_MODEL["main"](["--out", str(tmp_path), *options]) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
