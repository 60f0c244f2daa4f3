"""Composed configs for the tests: real ones, composed once, with settings laid over a copy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pyarrow
import pyarrow.parquet
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from verl_ispo.doctor import config_checks
from verl_ispo.preflight.composition import compose_config
from verl_ispo.preflight.finding import PROBLEM, Finding, survived

BOXED_PROMPT = "What is 6 times 7? Please put your final answer within \\boxed{}."
OUR_GRADER = ("reward.custom_reward_function.path=pkg://verl_ispo.grading.reward_function",)
CONTEXT = "actor_rollout_ref.model.override_config.max_position_embeddings"
VLLM_CONTEXT = "actor_rollout_ref.rollout.engine_kwargs.vllm.hf_overrides.max_position_embeddings"
# The paper's three models on 8 GPUs of 80 GB, prompts of up to 1024 tokens.
MATH_1_5B = ("actor_rollout_ref.model.path=Qwen/Qwen2.5-Math-1.5B", f"{CONTEXT}=5120", f"{VLLM_CONTEXT}=5120")
MATH_7B = ("actor_rollout_ref.model.path=Qwen/Qwen2.5-Math-7B", f"{CONTEXT}=5120", f"{VLLM_CONTEXT}=5120")
BASE_7B = ("actor_rollout_ref.model.path=Qwen/Qwen2.5-7B", "data.max_response_length=8192")
COMMON = ("data.max_prompt_length=1024", "data.filter_overlong_prompts=true", *OUR_GRADER)


@cache
def composed(name: str = "ispo_trainer", *presets: str) -> DictConfig:
    """A config with presets alone; do not change it."""
    return compose_config(name, presets)


def with_settings(settings: Iterable[str], base: DictConfig | None = None) -> DictConfig:
    """A copy of `base` with ``key=value`` settings, which may be new keys."""
    config = OmegaConf.create((base or composed()).copy())
    OmegaConf.set_struct(config, False)
    return OmegaConf.merge(config, OmegaConf.from_dotlist(list(settings)))


def all_findings(config: DictConfig, preset: DictConfig | None = None, gpu_memory_gib: float = 80.0) -> list[Finding]:
    """What the doctor says of a config, wherever it will run."""
    checks = config_checks(config, preset or composed(), gpu_memory_gib)
    return [finding for name, check in checks for finding in survived(name, check)]


def problems(findings: Iterable[Finding]) -> dict[str, str]:
    """Key to text, of the problems alone."""
    return {finding.subject: finding.text for finding in findings if finding.level == PROBLEM}


def math_row(source: str = "dapo_math", prompt: object = None, reward_model: object = None) -> dict:
    """A row as ``data_prep`` writes it, with the columns that verl reads."""
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": BOXED_PROMPT}] if prompt is None else prompt,
        "reward_model": {"style": "rule", "ground_truth": "42"} if reward_model is None else reward_model,
    }


def write_rows(path: Path, rows: list[dict]) -> Path:
    """Rows as parquet."""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def data_settings(folder: Path, rows: list[dict] | None = None) -> tuple[str, str]:
    """Settings for training and validation files of these rows; 600 usual ones by default."""
    file = write_rows(folder / "rows.parquet", rows or [math_row()] * 600)
    return f"data.train_files={file}", f"data.val_files={file}"


CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}<|im_end|>\n{% endfor %}"


@cache
def word_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's kind of tokenizer, in which `BOXED_PROMPT` is one token per word and any other text is bytes."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=letters, show_progress=False, min_frequency=1)
    learned.train_from_iterator([BOXED_PROMPT], trainer)
    model = json.loads(learned.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def write_model(folder: Path, **changes: object) -> Path:
    """A folder with the tokenizer and a config.json of a tiny Qwen2, without weights."""
    shape = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }
    folder.mkdir(exist_ok=True)
    word_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(shape | changes), encoding="utf-8")
    return folder
