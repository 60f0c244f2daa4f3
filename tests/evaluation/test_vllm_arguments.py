"""``--vllm-args`` becomes arguments of ``vllm.LLM``, each value as YAML reads it, and what cannot be one is refused.

Not exercised: vLLM itself with them (tests/vllm; on a GPU, docs/real_study.md has a run).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.local_source import local_source
from verl_ispo.evaluation.vllm_sampler import OURS, read_arguments
from verl_ispo.user_error import UserError


def test_values_are_yaml_and_dots_go_inside() -> None:
    words = ["kv_cache_memory_bytes=2147483648", "enforce_eager=true", "compilation_config.mode=0", "dtype=float32"]
    assert read_arguments(words) == {
        "kv_cache_memory_bytes": 2147483648,
        "enforce_eager": True,
        "compilation_config": {"mode": 0},
        "dtype": "float32",
    }
    assert read_arguments([]) == {}


@given(st.sampled_from(OURS), st.text("abc0 =:", max_size=6))
@settings(max_examples=examples(20))
def test_what_the_sampler_sets_itself_is_refused_whatever_the_value(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{name} is set by verl-ispo eval"):
        read_arguments([f"{name}={value}"])


@pytest.mark.parametrize("word", ["enforce_eager", "=true", "--dtype=float32", "a b=1", "", "a..b=1"])
def test_a_word_that_is_no_argument_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="give KEY=VALUE"):
        read_arguments([word])


def test_a_value_that_is_no_yaml_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="a value is no YAML"):
        read_arguments(["compilation_config={mode: [0"])


def test_another_sampler_takes_none() -> None:
    fields = {field.name: None for field in dataclasses.fields(EvaluationOptions)}
    options = EvaluationOptions(
        **{**fields, "sampler": "cpu", "model": "no such", "vllm_args": ("a=1",), "out": Path("out")}
    )
    with pytest.raises(UserError, match="--vllm-args a=1: the sampler is cpu"):
        local_source(options, [])
