"""The byte-level tokenizer as Hugging Face and verl load it, and the model's shape.

Not exercised here: verl's own loaders, which are in test_with_verl.py since importing verl takes seconds.
"""

import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_ispo.tiny_task.base_model import build_model
from verl_ispo.tiny_task.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    build_model(tokenizer, seed=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(saved):
    return AutoTokenizer.from_pretrained(saved)


def without_special_tokens(text):
    """A text that spells out a special token is that token, as with Qwen's own tokenizer."""
    return not any(token in text for token in ("<|im_end|>", "<|endoftext|>", "<|im_start|>"))


@given(text=st.text(alphabet=st.characters(max_codepoint=0x7F)).filter(without_special_tokens))
def test_ascii_text_is_its_bytes_and_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text


@given(text=st.text().filter(without_special_tokens))
def test_any_text_comes_back_as_its_composed_form(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == list(unicodedata.normalize("NFC", text).encode())
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


@given(ids=st.lists(st.integers(0, 258), max_size=40))
def test_any_ids_that_a_policy_may_sample_decode(tokenizer, ids):
    assert isinstance(tokenizer.decode(ids, skip_special_tokens=True), str)


def test_special_tokens(tokenizer):
    assert len(tokenizer) == 259
    assert tokenizer.encode("\n", add_special_tokens=False) == [10]
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>", "<|im_start|>"]) == [256, 257, 258]
    assert tokenizer.encode("8}<|im_end|>") == [ord("8"), ord("}"), 256]
    assert tokenizer.decode([ord("8"), 256, 257, 258], skip_special_tokens=True) == "8"


def test_a_prompt_is_the_users_text_and_nothing_else(tokenizer):
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "9-1="}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert prompt == list(b"9-1=")


def test_turns_concatenate_token_by_token(tokenizer):
    turns = [
        {"role": "user", "content": "9-1="},
        {"role": "assistant", "content": r"\boxed{8}"},
        {"role": "user", "content": "2+2="},
    ]
    whole = tokenizer.apply_chat_template(turns, return_dict=False)
    assert whole == [*b"9-1=", *rb"\boxed{8}", 256, 10, *b"2+2="]


def test_the_model_is_a_qwen2_of_the_stated_size(saved):
    model = AutoModelForCausalLM.from_pretrained(saved)
    assert model.config.model_type == "qwen2"
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert model.config.vocab_size == 259
    assert model.config.max_position_embeddings >= 256
    assert sum(p.numel() for p in model.model.layers.parameters()) == 640_896
    assert sum(p.numel() for p in model.parameters()) == 640_896 + 128 + 2 * 259 * 128
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.generation_config.eos_token_id == 256


def test_the_initialisation_follows_the_seed_and_spares_the_callers_random_state():
    tokenizer = build_tokenizer()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (build_model(tokenizer, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
