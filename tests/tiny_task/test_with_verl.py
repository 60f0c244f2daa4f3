"""verl 0.9.1's own code on what the tiny task writes: tokenizer, prompts, data set, scorer, validation names, log.

Importing verl takes seconds, and the data set goes through the ``datasets`` library, hence the mark.

Not exercised here: a training; the trainer's tests have one.
"""

import asyncio

import numpy as np
import pytest
from omegaconf import OmegaConf

from verl_ispo.runs.metric_log import read_metric_table
from verl_ispo.tiny_task import compare_runs, make_data
from verl_ispo.tiny_task.base_model import build_model
from verl_ispo.tiny_task.tokenizer import build_tokenizer

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    make_data.main(["--out", str(folder), "--train-rows", "64"])
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    build_model(tokenizer, 0).save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def tokenizer(task):
    from verl.utils import hf_tokenizer

    return hf_tokenizer(str(task / "model"))


def test_verl_keeps_the_padding_token_and_finds_no_processor(task, tokenizer):
    from verl.utils import hf_processor

    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 257)
    assert hf_processor(str(task / "model")) is None


def test_the_qwen_prompt_builder_takes_the_tokenizer(tokenizer):
    from verl.utils.tokenizer.continuous_token import QwenContinuousTokenBuilder
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    builder = create_continuous_token_builder(tokenizer, hf_model_type="qwen2")
    assert type(builder) is QwenContinuousTokenBuilder
    first = [{"role": "user", "content": "9-1="}]
    assert builder.build_initial_tokens(first) == list(b"9-1=")
    # a second turn, as a multi-turn agent would append it after the model's own tokens
    runtime = [*b"9-1=", *rb"\boxed{8}", 256]
    turns = [*first, {"role": "assistant", "content": r"\boxed{8}"}, {"role": "user", "content": "2+2="}]
    merged = builder.merge_context_tokens(turns[:2], turns, runtime)
    assert merged.token_ids == tokenizer.apply_chat_template(turns, return_dict=False)


@pytest.mark.parametrize("name", ["train", "heldout"])
def test_the_data_set_loads_and_filters_nothing(task, tokenizer, name):
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    config = OmegaConf.create(
        {
            "cache_dir": str(task / "cache"),
            "max_prompt_length": 32,
            "filter_overlong_prompts": True,
            "filter_overlong_prompts_workers": 1,
        }
    )
    data = RLHFDataset([str(task / f"{name}.parquet")], tokenizer, config)
    assert len(data) == {"train": 64, "heldout": 300}[name]
    row = data[0]
    assert row["raw_prompt"] == [{"role": "user", "content": row["extra_info"]["question"]}]
    assert row["index"] == 0
    batch = collate_fn([data[i] for i in range(4)])
    assert batch["reward_model"].shape == (4,)


def test_the_reward_loop_scores_a_rollout(tokenizer):
    import torch
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

    from verl_ispo.tiny_task.reward import compute_score

    response = [*rb"9-1=8;\boxed{8.0}", 256]
    padding = [257] * 4
    data = DataProto.from_dict(
        tensors={
            "responses": torch.tensor([response + padding]),
            "attention_mask": torch.tensor([[1] * (4 + len(response)) + [0] * 4]),
        },
        non_tensors={
            "data_source": np.array(["tiny_arithmetic"], dtype=object),
            "reward_model": np.array([{"style": "rule", "ground_truth": "8"}], dtype=object),
            "extra_info": np.array([{"index": 0}], dtype=object),
        },
    )

    async def score():
        return await NaiveRewardManager(OmegaConf.create({}), tokenizer, compute_score).run_single(data)

    result = asyncio.run(score())
    assert result["reward_score"] == 1.0
    assert result["reward_extra_info"] == {"score": 1.0, "acc": True, "pred": "8"}


def test_the_scorer_is_found_by_its_module_path():
    from verl.utils.import_utils import load_extern_object

    from verl_ispo.tiny_task import reward

    assert load_extern_object("pkg://verl_ispo.tiny_task.reward", "compute_score") is reward.compute_score


def test_validation_metrics_have_the_names_that_the_summary_reads(tmp_path, monkeypatch):
    """verl's own naming and its own file logger, then our reader."""
    from verl.trainer.ppo.metric_utils import process_validation_metrics
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils.tracking import FileLogger

    sources = [make_data.held_out_data_source(level) for level in range(1, 7) for _ in range(50)]
    accurate = [index % 50 < 30 for index in range(300)]
    extra = {"score": [float(a) for a in accurate], "acc": accurate, "pred": ["8"] * 300}
    uids = [str(index) for index in range(300)]
    assert process_validation_metrics(sources, uids, extra)
    metrics = PPOTrainer._val_metrics_update(None, sources, uids, extra, [])
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    logger = FileLogger("project", "experiment")
    logger.log({**metrics, "ispo/critical_entropy/wrong": np.float64("nan")}, step=0)
    logger.finish()
    [accuracy] = compare_runs.read_accuracies(read_metric_table(tmp_path), 50)
    assert accuracy.solved == {str(level): 30 for level in range(1, 7)}
    assert read_metric_table(tmp_path)["ispo/critical_entropy/wrong"].isna().all()
