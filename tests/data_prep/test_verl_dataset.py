"""verl's own data set class loads every output, and finds in it what a trainer and a reward function need.

Derivation. The columns are of use only if verl reads them. Each command's output goes through verl's `RLHFDataset` as a
training run would load it, prompt-length filter included, with a small byte-level tokenizer.

Not exercised: a training run, which the trainer's tests have.
"""

from __future__ import annotations

import pytest
from made_problems import BENCHMARKS, PAPER_BENCHMARKS, command, made_benchmark, made_rows, problem, write_jsonl

from data_prep.prompt_templates import wrap_dapo

pytestmark = pytest.mark.trainer


@pytest.fixture
def load(tokenizer_path, tmp_path):
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    config = {"max_prompt_length": 32_768, "filter_overlong_prompts_workers": 1, "cache_dir": str(tmp_path / "cache")}

    def load(*files):
        return RLHFDataset([str(file) for file in files], tokenizer, OmegaConf.create(config))

    return load


def check(dataset, name, count):
    assert len(dataset) == count
    row = dataset[count - 1]
    assert row["data_source"] == name
    assert row["index"] == count - 1
    assert row["raw_prompt"][-1]["role"] == "user"
    assert row["extra_info"]["question"] in row["raw_prompt"][-1]["content"]
    assert isinstance(row["reward_model"]["ground_truth"], str)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks(load, tmp_path, name):
    source = made_benchmark(name, tmp_path / "data.jsonl")
    assert command(name, "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    check(load(tmp_path / f"{name}.parquet"), name, BENCHMARKS[name])


def test_training_sets(load, tmp_path):
    options = ["--no_decontaminate", "--local_save_dir", tmp_path]
    source = write_jsonl(tmp_path / "made.jsonl", made_rows(50))
    assert command("generic", "--local_dataset_path", source, "--data_source", "made", *options) == 0
    check(load(tmp_path / "made.parquet"), "made", 50)
    rows = [
        {"prompt": [{"role": "user", "content": wrap_dapo(problem(n))}], "reward_model": {"ground_truth": str(n)}}
        for n in range(60)
    ]
    source = write_jsonl(tmp_path / "dapo.jsonl", rows * 3)
    assert command("dapo_math", "--local_dataset_path", source, *options) == 0
    check(load(tmp_path / "dapo_math.parquet"), "dapo_math", 60)
    # One schema for every set: they can be loaded together.
    assert len(load(tmp_path / "made.parquet", tmp_path / "dapo_math.parquet")) == 110


def test_the_length_filter_counts_as_verl_does(load, tmp_path, tokenizer_path):
    source = write_jsonl(tmp_path / "made.jsonl", made_rows(50))
    options = ["--no_decontaminate", "--local_save_dir", tmp_path, "--tokenizer", tokenizer_path]
    arguments = ["--local_dataset_path", source, "--data_source", "made", *options]
    assert command("generic", *arguments) == 0
    dataset = load(tmp_path / "made.parquet")
    lengths = [
        len(
            dataset.tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=True)["input_ids"]
        )
        for row in dataset.dataframe
    ]
    limit = sorted(lengths)[24]
    assert command("generic", *arguments, "--max_prompt_tokens", limit) == 0
    assert len(load(tmp_path / "made.parquet")) == sum(length <= limit for length in lengths)


def test_the_real_files(real_data, load, tmp_path):
    options = ["--local_save_dir", tmp_path]
    for name, count in PAPER_BENCHMARKS.items():
        assert command(name, "--local_dataset_path", real_data / f"{name}.jsonl", *options) == 0
        check(load(tmp_path / f"{name}.parquet"), name, count)
    arguments = ["--local_dataset_path", real_data / "deepmath_5k.jsonl", "--data_source", "deepmath", *options]
    assert command("generic", *arguments) == 0
    assert len(load(tmp_path / "deepmath.parquet")) > 4900
    assert len(load(*(tmp_path / f"{name}.parquet" for name in [*PAPER_BENCHMARKS, "deepmath"]))) > 6000
