r"""log p(A* | Q, T, lead-in): the ground truths that the trainer reads, and the forward over any number of texts.

What goes wrong in general: the number of rows divides neither by workers nor by micro-batches, and verl stops; what
comes back is in the order of the workers and not of the rollouts; a stand-in row is read as a rollout's; the ground
truth of another prompt is scored, or one of a group that has a correct rollout.

Derivation: a stand-in for verl's workers checks what verl's dispatch and engines check, and runs the rows as one of
them does, on a small model in float32. The gains are compared with forwards over each rollout alone, in float64,
without padding, by positions picked by hand: to 1e-5.

Not exercised: verl's engines (test_engine_features, tests/training/test_methods.py).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu

from tests.composed import composed
from tests.trainer.test_ablated_rows import PROMPTS, RESPONSES, TEXTS, as_verls_workers_do, token_ids
from verl_ispo.signals.answer_span import find_answer_spans
from verl_ispo.signals.right_answer import right_answer_gain, right_answer_rows, right_answer_scores
from verl_ispo.trainer import right_answer_forward
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.right_answer_forward import (
    log_probs_of_tails,
    longest_row,
    right_answers_of_all_wrong_groups,
    row_multiple,
)
from verl_ispo.trainer.step_batch import StepBatch


def settings(dynamic: bool = False, micro_batch: int | None = 4, **megatron: int) -> Any:
    rollout = {"log_prob_use_dynamic_bsz": dynamic, "log_prob_micro_batch_size_per_gpu": micro_batch}
    actor = {"megatron": megatron} if megatron else {}
    return OmegaConf.create({"actor_rollout_ref": {"rollout": {**rollout, "temperature": 0.7}, "actor": actor}})


@pytest.mark.parametrize(
    ("config", "workers", "multiple"),
    [
        (settings(), 1, 4),
        (settings(), 3, 12),
        (settings(dynamic=True, micro_batch=None), 3, 3),
        (settings(pipeline_model_parallel_size=2, virtual_pipeline_model_parallel_size=None), 1, 4),
        (settings(pipeline_model_parallel_size=2, virtual_pipeline_model_parallel_size=2), 3, 24),
    ],
)
def test_rows_divide_by_workers_micro_batches_and_rounds_of_an_interleaved_pipeline(config, workers, multiple):
    assert row_multiple(config, workers) == multiple


@pytest.mark.parametrize(
    ("overrides", "longest"),
    [
        (("actor_rollout_ref.actor.use_dynamic_bsz=false",), 1300),
        (
            ("actor_rollout_ref.actor.use_dynamic_bsz=true", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=900"),
            900,
        ),
        (
            ("actor_rollout_ref.actor.use_dynamic_bsz=true", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=9000"),
            1300,
        ),
    ],
)
def test_no_row_is_longer_than_a_rollout_or_a_micro_batch_may_be(overrides, longest):
    """verl stops at a longer one, after the rollouts."""
    config = composed(*overrides, "data.max_prompt_length=300", "data.max_response_length=1000")
    assert longest_row(config) == longest


class Workers:
    """Runs the rows as verl's workers do, share by share."""

    def __init__(self, model: Qwen2ForCausalLM, count: int, micro_batch: int) -> None:
        self.model, self.count, self.micro_batch = model, count, micro_batch
        self.tokens_of_shares: list[int] = []

    def _query_dispatch_info(self, name: str) -> list[int]:
        assert name == "actor"
        return list(range(self.count))

    def compute_log_prob(self, rows: TensorDict) -> dict[str, torch.Tensor]:
        assert tu.get_non_tensor_data(rows, "compute_loss", default=None) is False
        assert len(rows) % (self.count * self.micro_batch) == 0
        temperature = tu.get_non_tensor_data(rows, "temperature", default=None)
        lengths = rows["input_ids"].offsets().diff().view(self.count, -1)
        self.tokens_of_shares = lengths.sum(dim=-1).tolist()
        return {"log_probs": as_verls_workers_do(self.model, rows, temperature)}


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(TEXTS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


def encode(text: str) -> list[int]:
    """Longest match first; a character that no token has is left out."""
    ids = []
    while text:
        token = max((one for one in TEXTS if text.startswith(one)), key=len)
        ids += [TEXTS.index(token)] if token else []
        text = text[max(1, len(token)) :]
    return ids


@pytest.mark.parametrize(("workers", "micro_batch"), [(1, 8), (2, 1), (3, 2)])
def test_gains_are_those_of_forwards_over_each_rollout_alone(model, workers: int, micro_batch: int):
    rows = right_answer_rows(
        PROMPTS,
        RESPONSES,
        find_answer_spans([response.tolist() for response in RESPONSES], TEXTS.__getitem__),
        ["7x", "7", "x7", "7x", "42", "7", "7"],
        encode,
        lambda ids: "".join(TEXTS[token] for token in ids),
    )
    group = Workers(model, workers, micro_batch)
    config = settings(micro_batch=micro_batch)
    scores = right_answer_scores(log_probs_of_tails(group, config, rows.heads, rows.tails), rows)
    assert max(group.tokens_of_shares) - min(group.tokens_of_shares) <= max(map(len, rows.heads)) + 2

    exact = Qwen2ForCausalLM(model.config).double().eval()
    exact.load_state_dict(model.state_dict())

    def log_prob(head: list[str], tail: list[str]) -> float:
        ids = token_ids([*head, *tail])
        with torch.no_grad():
            logits = exact(input_ids=ids.unsqueeze(0)).logits[0] / 0.7
        values = [logits[len(head) - 1 + at].log_softmax(-1)[ids[len(head) + at]].item() for at in range(len(tail))]
        return sum(values) / len(tail)

    # prompt, trace, lead-in and answer, as the method puts them behind each rollout's own lead-in
    expected = [
        (["x"], ["so ", "x"], ["\\boxed", "{"], ["7", "x"]),
        (["x", "7", "so "], ["7"], ["= \\boxed", "{"], ["7"]),  # the brace was part of the first token of A
        (["so "], ["x", "x", "7"], ["\\boxed{"], ["x", "7"]),  # one token had held lead-in and A
        (["x", "x"], [], ["\\boxed{"], ["7", "x"]),  # no trace
        (["x"], ["so ", "7"], ["\nAnswer:"], [" 4", "2"]),  # the space joins with the answer
    ]
    gains = [
        log_prob(prompt + trace + lead_in, answer) - log_prob(prompt + lead_in, answer)
        for prompt, trace, lead_in, answer in expected
    ]
    assert scores.scored.tolist() == [True] * 5 + [False] * 2
    assert right_answer_gain(scores).tolist() == pytest.approx([*gains, 0, 0], abs=1e-5)
    assert gains[3] == 0


def test_nothing_to_score_runs_nothing():
    assert log_probs_of_tails(None, settings(), [], []) == []


class Values(list):
    """A field as the transfer queue gives it: one value per row."""


def ground_truths(monkeypatch: pytest.MonkeyPatch, reward_models: dict[str, Any] | None) -> list[str | None]:
    """Three prompts: a mixed one, two without a correct rollout; and one of verl's padding rows in between."""
    asked: list[str] = []

    def fetched(batch: Any, fields: list[str]) -> dict[str, Values]:
        asked.extend(batch.keys)
        assert fields == ["reward_model"]
        return {} if reward_models is None else {fields[0]: Values(reward_models[key[0]] for key in batch.keys)}

    monkeypatch.setattr(right_answer_forward, "fetch", fetched)
    monkeypatch.setattr(right_answer_forward, "KVBatchMeta", lambda **fields: SimpleNamespace(**fields))
    keys = ["a_0_0", "b_0_0", "padding", "c_0_0", "a_1_0", "b_1_0", "c_1_0"]

    class Batch(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.keys)

    rows = torch.tensor([0, 1, 3, 4, 5, 6])
    step = StepBatch(tuple(keys[row] for row in rows), rows, 7, {})
    step.__dict__["correct"] = torch.tensor([True, False, False, False, False, False])
    found = right_answers_of_all_wrong_groups(Batch(keys=keys, partition_id="train"), step)
    assert sorted(key[0] for key in asked) == ["b", "c"]  # one row for each prompt, and none of the mixed one
    return found


def test_each_rollout_of_an_all_wrong_group_gets_its_prompts_ground_truth(monkeypatch):
    reward_models = {"b": {"ground_truth": "12"}, "c": {"ground_truth": ["1", " -2 "]}}
    assert ground_truths(monkeypatch, reward_models) == [None, "12", None, "1, -2", None, "12", "1, -2"]
    without = {"b": None, "c": {"style": "model"}}
    assert ground_truths(monkeypatch, without) == [None, "", None, "", None, "", ""]


def test_data_without_ground_truths_are_refused_by_the_name_of_the_key(monkeypatch):
    with pytest.raises(UnsupportedSettingError, match=r"all_wrong_groups=right_answer reads reward_model.*informative"):
        ground_truths(monkeypatch, None)
