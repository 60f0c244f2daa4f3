"""Memory of a CPU training: the micro-batches that fit, and what is said before a start.

Derivation. A row of a micro-batch takes its tokens times (vocabulary and layers), so the rows that fit fall with
either and with the number of workers, and never below one. With a tiny model all that a worker's share allows fit; with
a vocabulary of 49,152 a micro-batch of 64 rows took 13 GB.

Not exercised: the estimate against a training (measured once, docs/cpu.md).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from tests.examples import examples
from verl_ispo.preflight import cpu_memory
from verl_ispo.preflight.cpu_memory import (
    LOGITS_SHARE,
    check_cpu_memory,
    estimate_cpu_memory,
    machine_memory_bytes,
    rows_that_fit,
)
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM
from verl_ispo.preflight.gpu_memory import GIB
from verl_ispo.preflight.model_shape import ModelShape

TINY = ModelShape("tiny", "qwen2", 128, 256, 3, 4, 2, 32, 259, 256, True)
SMALL = ModelShape("small", "llama", 576, 1536, 30, 9, 3, 64, 49152, 8192, True)


def config_of(device: str = "cpu", workers: int = 1, rows: int = 64, response: int = 64) -> DictConfig:
    return OmegaConf.create(
        {
            "trainer": {"device": device, "nnodes": 1, "n_gpus_per_node": workers},
            "data": {"max_prompt_length": 64, "max_response_length": response, "train_batch_size": 8},
            "actor_rollout_ref": {
                "model": {"lora_rank": 0},
                "actor": {"ppo_micro_batch_size_per_gpu": rows},
                "rollout": {"n": 8, "dtype": "float32"},
            },
        }
    )


@settings(max_examples=examples(100), deadline=None)
@given(
    shape=st.sampled_from([TINY, SMALL]),
    most=st.sampled_from([1, 2, 16, 64, 128]),
    workers=st.integers(1, 4),
    response=st.integers(1, 8192),
    memory=st.floats(1 * GIB, 512 * GIB),
    is_update=st.booleans(),
)
def test_as_many_rows_as_fit_and_no_more(
    shape: ModelShape, most: int, workers: int, response: int, memory: float, is_update: bool
) -> None:
    config = config_of(response=response)
    rows = rows_that_fit(config, shape, most, workers, memory, is_update)
    row_bytes = (64 + response) * cpu_memory._token_bytes(shape, is_update) * workers
    assert most % rows == 0
    assert rows == 1 or rows * row_bytes <= LOGITS_SHARE * memory
    assert rows == most or 2 * rows * row_bytes > LOGITS_SHARE * memory
    # the backward pass keeps more
    assert rows <= rows_that_fit(config, shape, most, workers, memory, False)


def test_a_tiny_model_keeps_its_rows_and_a_vocabulary_of_49152_has_fewer() -> None:
    config = config_of()
    assert rows_that_fit(config, TINY, 64, 1, 8 * GIB, True) == 64
    assert rows_that_fit(config, SMALL, 64, 1, 24 * GIB, True) == 16
    assert rows_that_fit(config, None, 64, 1, GIB, True) == 64, "a model that is not here yet"


@pytest.mark.parametrize(
    ("rows", "memory_gib", "level"), [(64, 24, PROBLEM), (8, 24, OK), (8, 10, NOTE), (8, 6, PROBLEM)]
)
def test_what_does_not_fit_is_a_problem_with_its_parts(rows: int, memory_gib: int, level: str) -> None:
    [found] = check_cpu_memory(config_of(rows=rows), SMALL, memory_gib * GIB)
    assert found.level == level, found.text
    assert f"ppo_micro_batch_size_per_gpu={rows}" in found.text


def test_gpus_and_unknown_models_are_left_to_others() -> None:
    assert list(check_cpu_memory(config_of(device="cuda"), SMALL, GIB)) == []
    assert list(check_cpu_memory(config_of(), None, GIB)) == []


@pytest.mark.parametrize("key", ["lora_rank", "lora.rank"])
def test_an_adapter_has_no_reference_and_trains_little(key: str) -> None:
    """By either of verl's keys."""
    config = config_of()
    OmegaConf.update(config, f"actor_rollout_ref.model.{key}", 8)
    with_adapter, whole = estimate_cpu_memory(config, SMALL), estimate_cpu_memory(config_of(), SMALL)
    assert with_adapter.reference == 0
    assert with_adapter.actor == whole.actor / 4


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(cpu_memory, "_CGROUP_LIMIT", limit)
    whole = machine_memory_bytes()
    limit.write_text("max\n")
    assert machine_memory_bytes() == whole > GIB
    limit.write_text(f"{GIB}\n")
    assert machine_memory_bytes() == GIB
