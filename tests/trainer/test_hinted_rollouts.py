"""Hinted rollouts between verl's replay buffer and the trainer: which groups, which prompts, and what is put where.

On a dict in the place of verl's queue and a buffer that "writes" rollouts at once; a hint that says "right" helps.

- Groups without a correct rollout are found, each with its first rollout, whatever the order of rows.
- Each hinted prompt is handed out once, under a name of its own, with one rollout; too long ones are not.
- The chosen rollout is under the first rollout's key, belongs to its group, and the batch's tag is its own. Nothing of
  the others is left in the queue.
- Validation batches, and steps before the first one with hints, pass as they are.
- Modes and settings in which this cannot work are refused by name, and so is data without hints.

Not exercised: verl's queue and agent loops themselves (tests/training).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from tests.composed import composed
from verl_ispo.methods.registry import methods
from verl_ispo.methods.scaf_grpo import HINT_COLUMNS
from verl_ispo.trainer import hinted_rollouts, step_batch
from verl_ispo.trainer.hinted_rollouts import HintedRolloutsMixin, SamplingThen
from verl_ispo.trainer.refusals import UnsupportedSettingError, refuse_unsupported_settings

KNOWLEDGE = HINT_COLUMNS[0]


class Queue(dict):
    """Rollouts by key, with the part of transfer_queue's interface that is used."""

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str] | None = None) -> TensorDict:
        rows = [{name: self[key][name] for name in select_fields or self[key]} for key in keys]
        fields = tu.list_of_dict_to_tensordict(rows)
        # as in verl's queue, tokens are nested also where all rows are as long
        fields["rm_scores"] = torch.nested.as_nested_tensor([row["rm_scores"] for row in rows], layout=torch.jagged)
        return fields

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            del self[key]

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: TensorDict, tags: list[dict]) -> None:
        for row, key in enumerate(keys):
            self[key] = {name: fields[row][name] for name in fields.keys()}  # noqa: SIM118

    def write(self, key: str, correct: bool, text: str) -> dict:
        scores = torch.tensor([0.0] * (len(text) - 1) + [float(correct)])
        self[key] = {"rm_scores": scores, "extra_fields": {"reward_extra_info": {}}, "text": text, "uid": key[:-4]}
        return {"seq_len": len(text), "key": key}


class Trainer(HintedRolloutsMixin):
    on_sample_end = on_step_end = None
    thrown_away_tokens = 0

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch, longest: int = 100) -> None:
        self.method = methods()["scaf_grpo"]
        self.config = composed("method=scaf_grpo", "algorithm.scaf_grpo.warmup_steps=1")
        self.config.actor_rollout_ref.rollout.prompt_length = longest
        self.queue, self.global_steps, self.timing_raw = queue, 2, {}
        self._prompt_builder = SimpleNamespace(build_initial_tokens=lambda messages: messages[-1]["content"])
        self._waiting_buffer = self
        self.handed_out: list[str] = []
        for module in (hinted_rollouts, step_batch):
            monkeypatch.setattr(module, "tq", queue)

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        assert list(batch["__rollout_n__"]) == [1] * len(batch)
        assert len(set(batch["uid"])) == len(batch)
        self.written = {}
        for uid, messages in zip(batch["uid"], batch["raw_prompt"], strict=True):
            text = messages[-1]["content"]
            self.handed_out.append(text)
            key = f"{uid}_0_0"
            self.written[key] = self.queue.write(key, "right" in text, text)
        return len(batch)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        assert batch_size == len(self.written)
        return KVBatchMeta(list(self.written), list(self.written.values()), partition_id), {}


def drawn(**hints: list[str]) -> TensorDict:
    prompts = [[{"role": "user", "content": f"{uid}?"}] for uid in hints]
    columns: dict[str, list[Any]] = {"uid": list(hints), "raw_prompt": prompts, KNOWLEDGE: list(hints.values())}
    arrays = {name: np.fromiter(values, dtype=object, count=len(values)) for name, values in columns.items()}
    return tu.get_tensordict({**arrays, "dummy_tensor": torch.zeros(len(hints), 1)})


def sampled(queue: Queue, **outcomes: list[bool]) -> KVBatchMeta:
    tags = {}
    for uid, verdicts in outcomes.items():
        for session in reversed(range(len(verdicts))):
            key = f"{uid}_{session}_0"
            tags[key] = queue.write(key, verdicts[session], f"{uid}{session}")
    return KVBatchMeta(list(tags), list(tags.values()), "train")


def test_the_lowest_correct_level_takes_the_place_of_the_first_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    trainer = Trainer(queue, monkeypatch)
    batch = sampled(queue, a=[False, False], b=[False, True], c=[False, False])
    before = dict(queue)
    trainer._drawn_rows = [drawn(a=["x", "right", "y"], b=["right"]), drawn(c=["x"])]
    found, metrics = trainer._after_sampling(batch)
    assert found is batch
    assert trainer.handed_out == [
        "a?\nKnowledge hints: x",
        "a?\nKnowledge hints: x right",
        "a?\nKnowledge hints: x right y",
        "c?\nKnowledge hints: x",
    ]
    assert set(queue) == set(before) == set(batch.keys)
    taken = queue.pop("a_0_0")
    assert {key: queue[key] for key in queue} == {key: before[key] for key in queue}
    assert taken["text"] == "a?\nKnowledge hints: x right"
    assert (taken["uid"], taken["session_id"]) == ("a", 0)
    assert taken["rm_scores"].sum() == 1
    lengths = {key: tag["seq_len"] for key, tag in zip(batch.keys, batch.tags, strict=True)}
    assert lengths == dict.fromkeys(before, 2) | {"a_0_0": len(taken["text"])}
    assert metrics == {
        "scaf_grpo/hints/all_incorrect_groups": 2,
        "scaf_grpo/hints/rollouts": 4,
        "scaf_grpo/hints/too_long": 0,
        "scaf_grpo/hints/replaced_rollouts": 1,
        "scaf_grpo/hints/level/mean": 1,
    }
    assert trainer._drawn_rows == []
    # for a budget: the first rollout of a, and the hinted ones that took no place
    left = [text for text in trainer.handed_out if text != taken["text"]]
    assert trainer.thrown_away_tokens == len("a0") + sum(map(len, left))


def test_prompts_that_are_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    trainer = Trainer(queue, monkeypatch, longest=len("a?\nKnowledge hints: x"))
    trainer._drawn_rows = [drawn(a=["x", "right"])]
    _, metrics = trainer._after_sampling(sampled(queue, a=[False]))
    assert trainer.handed_out == ["a?\nKnowledge hints: x"]
    assert metrics["scaf_grpo/hints/too_long"] == 1
    assert metrics["scaf_grpo/hints/replaced_rollouts"] == 0


def test_a_rollout_that_failed_is_not_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    trainer = Trainer(queue, monkeypatch)

    def without_the_first(**_: Any) -> tuple[KVBatchMeta, dict]:
        first, *others = trainer.written
        del queue[first]
        return KVBatchMeta(others, [trainer.written[key] for key in others], "train"), {}

    monkeypatch.setattr(trainer, "sample", without_the_first)
    trainer._drawn_rows = [drawn(a=["right", "again"])]
    _, metrics = trainer._after_sampling(sampled(queue, a=[False]))
    assert queue["a_0_0"]["text"] == "a?\nKnowledge hints: right again"
    assert metrics["scaf_grpo/hints/level/mean"] == 1


def test_nothing_is_asked_for_without_hints_or_before_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    trainer = Trainer(queue, monkeypatch)
    trainer._drawn_rows = [drawn(a=[])]
    assert trainer._after_sampling(sampled(queue, a=[False]))[1]["scaf_grpo/hints/rollouts"] == 0
    trainer.global_steps = 1
    trainer._drawn_rows = [drawn(a=["right"])]
    assert trainer._after_sampling(sampled(queue, a=[False]))[1] == {}
    assert trainer.handed_out == []


def test_validation_batches_pass() -> None:
    batch = KVBatchMeta(["a_0_0"], [{}], "val")
    inner = SimpleNamespace(sample=lambda **_: (batch, {"evicted": 1.0}), thrown_away_tokens=7)
    buffer = SamplingThen(inner, lambda batch: (batch, {"replaced": 2.0}))
    assert buffer.sample(global_steps=1, partition_id="val", batch_size=1) == (batch, {"evicted": 1.0})
    assert buffer.sample(1, "train", 1) == (batch, {"evicted": 1.0, "replaced": 2.0})
    assert buffer.thrown_away_tokens == 7, "whatever else is asked of the buffer, a budget's count for one"


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("trainer.v1.trainer_mode=ispo_colocate_async", r"Set trainer\.v1\.trainer_mode=ispo_sync"),
        ("trainer.v1.trainer_mode=ispo_separate_async", r"Set trainer\.v1\.trainer_mode=ispo_sync"),
        ("reward.reward_model.enable=true", r"enable_resource_pool=true"),
        ("trainer.v1.sampler.sync_refill_failed_groups=true", r"sync_refill_failed_groups=false"),
    ],
)
def test_where_it_cannot_work(override: str, remedy: str) -> None:
    refuse_unsupported_settings(composed("method=scaf_grpo"))
    with pytest.raises(UnsupportedSettingError, match=remedy):
        refuse_unsupported_settings(composed("method=scaf_grpo", override))


def test_data_without_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(Queue(), monkeypatch)
    monkeypatch.setattr("verl_ispo.trainer.prompt_selection.PromptSelectionMixin._init_dataloader", lambda self: None)
    trainer.train_dataset = [{"raw_prompt": [], KNOWLEDGE: ["x"]}]
    trainer._init_dataloader()
    trainer.train_dataset = [{"raw_prompt": []}]
    with pytest.raises(UnsupportedSettingError, match=r"--keep_columns knowledge_components_parts"):
        trainer._init_dataloader()
