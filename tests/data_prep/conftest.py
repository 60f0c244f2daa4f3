"""Fixtures: one preparation in this process, the real files where they are available, a tokenizer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_problems import REPOSITORY, Result, command, result_of, write_jsonl


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Result]:
    """Runs the `generic` command on rows, without decontamination unless asked, and reads what it wrote."""

    def run(rows: list[dict[str, Any]], *arguments: Any, decontaminate: bool = False) -> Result:
        source = write_jsonl(tmp_path / "train.jsonl", rows)
        folder = tmp_path / "out"
        options = [] if decontaminate else ["--no_decontaminate"]
        arguments = ("--data_source", "made", "--local_save_dir", folder, *options, *arguments)
        assert command("generic", "--local_dataset_path", source, *arguments) == 0
        return result_of(folder, "made")

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real problem files; tests that need it are skipped where it is absent."""
    shared = Path(os.environ.get("VERL_ISPO_SHARED", REPOSITORY.parent / "shared"))
    folder = shared / "data" / "raw"
    if not folder.is_dir():
        pytest.skip("the real data files are not available")
    return folder


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer with a chat template: one token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    fast.save_pretrained(folder)
    return folder
