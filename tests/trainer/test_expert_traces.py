"""Traces of the data between the data loader and the batch: what is asked for, and what the agent loop gives.

On the queue and the buffer of test_hinted_rollouts, which "write" at once.

- A prompt with a trace is asked for n - 1 rollouts, one without for n.
- The trace is the last rollout of its prompt, in the queue and in the batch; its text is in no field any more.
- The agent loop gives the trace's tokens with the end of sequence, cut at the longest response.
- Cells may be a text, a list of texts or chat messages, or nothing.
- Modes and settings in which this cannot work are refused by name, and so is data without the column.

Not exercised: verl's queue and agent loops themselves (tests/training).
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from tests.composed import composed
from tests.trainer.test_hinted_rollouts import Queue, sampled
from verl_ispo.methods.registry import methods
from verl_ispo.trainer import hinted_rollouts, step_batch
from verl_ispo.trainer.expert_traces import AGENT_LOOP, TRACE, ExpertTraceLoop, ExpertTracesMixin, trace_text
from verl_ispo.trainer.hinted_rollouts import ROLLOUTS
from verl_ispo.trainer.refusals import UnsupportedSettingError, refuse_unsupported_settings
from verl_ispo.trainer.step_batch import IS_EXPERT


class Handing:
    """The end of verl's submission: keeps what is handed out, and "writes" a rollout for each trace."""

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        self.handed_out = batch
        self.written = {}
        if TRACE in batch.keys():  # noqa: SIM118
            for uid, trace in zip(batch["uid"], batch[TRACE], strict=True):
                self.written[f"{uid}_0_0"] = self.queue.write(f"{uid}_0_0", True, trace)
                self.queue[f"{uid}_0_0"][TRACE] = trace
        return len(batch)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        assert batch_size == len(self.handed_out)
        return KVBatchMeta(list(self.written), list(self.written.values()), partition_id), {}


class Trainer(ExpertTracesMixin):
    on_sample_end = on_step_end = None
    sample = Handing.sample

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.method = methods()["rl_plus"]
        self.config = composed("method=rl_plus", "actor_rollout_ref.rollout.n=3")
        self.queue, self.global_steps, self.timing_raw = queue, 1, {}
        self._waiting_buffer = self
        for module in (hinted_rollouts, step_batch):
            monkeypatch.setattr(module, "tq", queue)
        # verl's own submission, behind the mixins
        monkeypatch.setattr(
            "verl.trainer.ppo.v1.trainer_base.PPOTrainer._submit_batch_to_rollout", Handing._submit_batch_to_rollout
        )


def drawn(**traces: Any) -> TensorDict:
    prompts = [[{"role": "user", "content": f"{uid}?"}] for uid in traces]
    columns: dict[str, list[Any]] = {"uid": list(traces), "raw_prompt": prompts, "target": list(traces.values())}
    arrays = {name: np.fromiter(values, dtype=object, count=len(values)) for name, values in columns.items()}
    return tu.get_tensordict({**arrays, "dummy_tensor": torch.zeros(len(traces), 1)})


def test_a_prompt_with_a_trace_gets_a_rollout_less(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(Queue(), monkeypatch)
    trainer._submit_batch_to_rollout(drawn(a=["known"], b=[], c="known"))
    assert list(trainer.handed_out[ROLLOUTS]) == [2, 3, 2]


def test_the_trace_is_the_last_rollout_of_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    trainer = Trainer(queue, monkeypatch)
    batch = sampled(queue, a=[False, False], b=[False, True, False])
    before = dict(queue)
    # the prompt c has been drawn, and is not in the batch
    trainer._drawn_rows = [drawn(a=["known"], b=[], c=["other"])]
    found, metrics = trainer._after_sampling(batch)
    assert list(trainer.handed_out["agent_name"]) == [AGENT_LOOP]
    assert list(trainer.handed_out[ROLLOUTS]) == [1]
    assert len(found) == found.size == 6
    assert found.keys[:5] == batch.keys
    assert found.keys[5] == "a_2_0"
    assert found.tags[5]["seq_len"] == len("known")
    trace = queue.pop("a_2_0")
    assert dict(queue) == before
    assert (trace["uid"], trace["session_id"], trace["text"]) == ("a", 2, "known")
    assert TRACE not in trace
    assert metrics == {"rl_plus/traces": 1}


def test_a_trace_that_is_not_graded_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    trainer = Trainer(queue, monkeypatch)
    monkeypatch.setattr(trainer, "sample", lambda **_: (KVBatchMeta([], [], "train"), {}))
    trainer._drawn_rows = [drawn(a=["known"])]
    with pytest.raises(RuntimeError, match="1 of 1 traces of the data were not graded"):
        trainer._after_sampling(sampled(queue, a=[False, False]))


@pytest.mark.parametrize(("longest", "response"), [(10, [97, 98, 0]), (2, [97, 98])])
def test_the_agent_loop_gives_the_traces_tokens(longest: int, response: list[int]) -> None:
    loop = ExpertTraceLoop.__new__(ExpertTraceLoop)
    loop.tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: list(map(ord, text)), eos_token_id=0)
    loop.rollout_config = SimpleNamespace(response_length=longest)

    async def built(messages: list[dict]) -> list[int]:
        return list(map(ord, messages[0]["content"]))

    loop.ct_build_initial_tokens = built
    kwargs = {"raw_prompt": [{"role": "user", "content": "?"}], TRACE: "ab", "global_steps": 3}
    output = asyncio.run(loop.run({"temperature": 1.0}, **kwargs))
    assert (output.prompt_ids, output.response_ids, output.response_mask) == ([63], response, [1] * len(response))
    assert output.extra_fields[IS_EXPERT]
    assert output.extra_fields["max_global_steps"] == 2


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("known", "known"),
        (["first", "second"], "first"),
        ([{"role": "assistant", "content": " said\n"}], "said"),
        ([], ""),
        (None, ""),
        ([{"role": "assistant", "content": None}], ""),
    ],
)
def test_cells(cell: object, text: str) -> None:
    assert trace_text(cell) == text


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("trainer.v1.trainer_mode=ispo_colocate_async", r"Set trainer\.v1\.trainer_mode=ispo_sync"),
        ("reward.reward_model.enable=true", r"enable_resource_pool=true"),
        ("actor_rollout_ref.rollout.calculate_log_probs=true", r"calculate_log_probs=false"),
    ],
)
def test_where_it_cannot_work(override: str, remedy: str) -> None:
    refuse_unsupported_settings(composed("method=rl_plus"))
    with pytest.raises(UnsupportedSettingError, match=remedy):
        refuse_unsupported_settings(composed("method=rl_plus", override))


def test_data_without_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(Queue(), monkeypatch)
    monkeypatch.setattr("verl_ispo.trainer.prompt_selection.PromptSelectionMixin._init_dataloader", lambda self: None)
    trainer.train_dataset = [{"raw_prompt": []}]
    with pytest.raises(UnsupportedSettingError, match=r"no column target\. Prepare the data with --keep"):
        trainer._init_dataloader()
