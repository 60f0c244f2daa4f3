"""Rollouts of a step are sampled in one batch of fixed order, whatever order and pauses they arrive in.

In float32 a sample depends on the batch around it, so a run repeats only if the batch does. Requests say how many they
are; the server waits for all of them and sorts them, and one that never comes does not stop the others.
"""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.examples import examples
from verl_ispo.cpu import rollout
from verl_ispo.cpu.asked_together import ASKED_TOGETHER, samples_in_one_batch
from verl_ispo.cpu.sampling import Sample, SampleRequest


def server(most: int = 1024) -> rollout.CPURolloutServer:
    """Without a model; its batches are recorded instead of sampled."""
    made = object.__new__(rollout.CPURolloutServer)
    made.config = SimpleNamespace(response_length=4, max_num_seqs=most, seed=0)
    made.model, made.eos_token_ids, made.global_steps = None, (), 1
    made._queue, made._last_arrival_s, made._loop_task = [], 0.0, None
    made._rejecting = made._abort = False
    made._arrived, made._accepting, made._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
    made._accepting.set()
    made._idle.set()
    return made


def batches_of(
    monkeypatch: pytest.MonkeyPatch, requests: list[dict], pauses: list[float], most: int = 1024
) -> list[list[SampleRequest]]:
    batches: list[list[SampleRequest]] = []

    def sample_batch(_model: None, requests: list[SampleRequest], *_: object) -> list[Sample]:
        batches.append(list(requests))
        return [Sample(token_ids=[request.seed]) for request in requests]

    async def ask() -> None:
        made = server(most)

        async def one(request: dict, pause: float) -> None:
            await asyncio.sleep(pause)
            output = await made.generate("id", request["prompt"], request["parameters"])
            assert output.token_ids == [request["parameters"]["seed"]]

        await asyncio.gather(*map(one, requests, pauses))
        made._loop_task.cancel()

    monkeypatch.setattr(rollout, "sample_batch", sample_batch)
    asyncio.run(ask())
    return batches


def requests_of(call: str, prompts: int, of_each: int, said: int | None = None) -> list[dict]:
    together = (call, prompts * of_each if said is None else said)
    return [
        {"prompt": [prompt], "parameters": {"seed": 100 * prompt + sample, ASKED_TOGETHER: together}}
        for prompt in range(prompts)
        for sample in range(of_each)
    ]


@given(st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=examples(8))
def test_one_batch_in_one_order(prompts: int, of_each: int, order: random.Random) -> None:
    requests = requests_of("call", prompts, of_each)
    expected = [request["parameters"]["seed"] for request in requests]
    order.shuffle(requests)
    pauses = [order.choice([0.0, 0.03]) for _ in requests]  # longer than the server waits for requests of no call
    with pytest.MonkeyPatch.context() as monkeypatch:
        (batch,) = batches_of(monkeypatch, requests, pauses)
    assert [request.seed for request in batch] == expected


def test_two_calls_are_two_batches(monkeypatch) -> None:
    requests = [*requests_of("first", 2, 2), *requests_of("second", 1, 3)]
    random.Random(0).shuffle(requests)
    batches = batches_of(monkeypatch, requests, [0.0] * len(requests))
    assert sorted(len(batch) for batch in batches) == [3, 4]


def test_a_request_that_never_comes_does_not_stop_the_others(monkeypatch) -> None:
    monkeypatch.setattr(rollout, "MISSING_AFTER_S", 0.05)
    (batch,) = batches_of(monkeypatch, requests_of("call", 2, 2, said=5), [0.0] * 4)
    assert len(batch) == 4


def test_more_than_fit_are_several_batches_in_order(monkeypatch) -> None:
    batches = batches_of(monkeypatch, requests_of("call", 1, 5), [0.0] * 5, most=2)
    assert [[request.seed for request in batch] for batch in batches] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("workers", "mode", "expected"),
    [(1, "ispo_sync", True), (1, "sync", True), (2, "ispo_sync", False), (1, "ispo_colocate_async", False)],
)
def test_only_where_one_server_gets_them_all(workers: int, mode: str, expected: bool) -> None:
    """Two servers share the requests by who is free, and new weights end requests that come again one by one."""
    config = OmegaConf.create({"trainer": {"nnodes": 1, "n_gpus_per_node": workers, "v1": {"trainer_mode": mode}}})
    assert samples_in_one_batch(config) is expected
