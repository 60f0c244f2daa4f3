"""Memory and disk by hand: each figure written out for Qwen2.5-7B on 8 GPUs, and how settings move it.

Not exercised: a measurement on a GPU. The estimates leave out what the module's docstring does not list.
"""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch

from tests.preflight.set_ups import BASE_7B, COMMON, composed, data_settings, problems, with_settings, write_model
from verl_ispo.preflight import checkpoint_plan
from verl_ispo.preflight.checkpoint_plan import check_checkpoints, check_disk, checkpoint_bytes, checkpoints_on_disk
from verl_ispo.preflight.composition import read_parallelism
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM
from verl_ispo.preflight.gpu_memory import GIB, MemoryEstimate, check_memory, estimate_memory
from verl_ispo.preflight.model_shape import lora_parameter_count, read_model_shape

ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"
PARAMETERS = 7_615_616_512
OUTER = 2 * 152064 * 3584 + 3584
LAYER = (PARAMETERS - OUTER) // 28


def estimate(*settings: str, name: str = "ispo_trainer") -> MemoryEstimate:
    config = with_settings((*COMMON, *BASE_7B, *settings), composed(name))
    return estimate_memory(config, read_model_shape(config), read_parallelism(config), 80 * GIB)


def test_fsdp_by_hand():
    memory = estimate()
    assert memory.weights == 4 * PARAMETERS / 8
    assert memory.gradients == 4 * PARAMETERS / 8
    assert memory.moments == 2 * 4 * PARAMETERS / 8
    assert memory.gathered == 2 * (OUTER + 2 * LAYER)
    assert memory.update_logits == 16384 * 152064 * 4 * 2
    assert memory.activations == 16384 * 3584 * 2 * 28 + 16384 * (8 * 3584 + 3 * 18944) * 2
    assert memory.reference == 0
    assert memory.engine == 40 * GIB
    assert memory.engine_weights == 2 * PARAMETERS / 2  # tensor parallel 2
    # 28 layers, keys and values, 4 heads of 128 over 2 GPUs, 2 bytes
    assert memory.kv_sequence == 28 * 2 * (4 / 2) * 128 * 2 * (1024 + 8192)
    assert memory.full_sequences == int((40 * GIB - PARAMETERS - 2 * GIB) / memory.kv_sequence)
    whole = memory.weights * 4 + memory.gathered + memory.activations + memory.update_logits + 3 * GIB
    assert memory.update == whole
    assert memory.rollout == memory.weights * 3 + 43 * GIB


def test_megatron_by_hand():
    memory = estimate(f"{ACTOR}.megatron.tensor_model_parallel_size=2", name="ispo_megatron_trainer")
    assert memory.weights == 2 * PARAMETERS / 2
    assert memory.gradients == 4 * PARAMETERS / 2
    assert memory.moments == 12 * PARAMETERS / 2 / 4
    assert memory.reference == 2 * PARAMETERS / 2
    assert memory.gathered == 0
    assert memory.update_logits == 16384 * 152064 / 2 * 4 * 2
    # Megatron keeps what is inside of the layers, unless it is told to recompute it
    assert memory.activations == 28 * 16384 * (8 * 3584 + 3 * 18944) * 2 / 2
    megatron = f"{ACTOR}.megatron"
    recomputed = estimate(
        f"{megatron}.tensor_model_parallel_size=2",
        f"{megatron}.override_transformer_config.recompute_granularity=full",
        name="ispo_megatron_trainer",
    )
    assert recomputed.activations == 16384 * 3584 * 2 * 28 / 2 + 16384 * (8 * 3584 + 3 * 18944) * 2 / 2


def test_what_moves_the_estimate():
    base = estimate()
    half = estimate(f"{ACTOR}.fsdp_config.model_dtype=bf16")
    assert (half.weights, half.moments) == (base.weights / 2, base.moments / 2)
    assert estimate(f"{ACTOR}.fsdp_config.fsdp_size=4").weights == 2 * base.weights
    assert estimate("trainer.nnodes=2").weights == base.weights / 2
    offloaded = estimate(f"{ACTOR}.fsdp_config.param_offload=true", f"{ACTOR}.fsdp_config.optimizer_offload=true")
    assert offloaded.rollout == 43 * GIB
    assert offloaded.update == base.update
    assert estimate(f"{MODEL}.use_fused_kernels=true").update_logits == 0
    chunked = estimate(f"{ACTOR}.entropy_from_logits_with_chunking=true")
    assert chunked.log_prob_logits == base.log_prob_logits / 2
    assert estimate(f"{ROLLOUT}.free_cache_engine=false").update == base.update + base.engine
    rows = estimate(f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size_per_gpu=2")
    assert rows.update_logits == 2 * (1024 + 8192) * 152064 * 8
    separate = estimate("trainer.v1.trainer_mode=ispo_separate_async")
    assert separate.rollout == 43 * GIB
    adapters = estimate(f"{MODEL}.lora_rank=16")
    config = with_settings(BASE_7B)
    assert adapters.weights == base.weights
    assert adapters.gradients == 4 * lora_parameter_count(read_model_shape(config), 16) / 8
    # key-value heads are not split below one
    assert estimate(f"{ROLLOUT}.tensor_model_parallel_size=8").kv_sequence == base.kv_sequence / 2


def test_smaller_gpus_are_a_problem_and_the_numbers_are_printed():
    config = with_settings((*COMMON, *BASE_7B))
    shape, parallelism = read_model_shape(config), read_parallelism(config)
    findings = list(check_memory(config, shape, parallelism, 24.0))
    assert "memory, update" in problems(findings)
    assert "7.62 B parameters" in findings[0].text
    assert "estimates" in findings[0].text
    assert problems(check_memory(config, shape, parallelism, 80.0)) == {}


def test_a_cpus_memory_is_another_checks(tmp_path):
    config = with_settings([f"{MODEL}.path={write_model(tmp_path / 'model')}", "trainer.device=cpu"])
    assert list(check_memory(config, read_model_shape(config), read_parallelism(config), 80.0)) == []


@pytest.mark.parametrize(
    ("contents", "bytes_a_parameter"),
    [("[model,optimizer,extra]", 4 + 8), ("[model]", 4), ("[model,optimizer,extra,hf_model]", 4 + 8 + 4)],
)
def test_checkpoint_by_hand(contents, bytes_a_parameter):
    config = with_settings((*BASE_7B, f"{ACTOR}.checkpoint.save_contents={contents}"))
    size = checkpoint_bytes(config, read_model_shape(config), read_parallelism(config))
    assert size == bytes_a_parameter * PARAMETERS


@pytest.mark.parametrize(
    ("steps", "every", "kept", "most"),
    [
        (100, 20, "null", 5),
        (101, 20, "null", 6),  # the last step is saved too
        (100, 20, 3, 3),
        (100, 20, 1, 2),  # verl deletes the old one after the new one is written
        (20, 20, 1, 1),
        (None, 20, "null", None),
        (None, 20, 2, 2),
    ],
)
def test_how_many_checkpoints_there_are_at_a_time(steps, every, kept, most):
    config = with_settings([f"trainer.save_freq={every}", f"trainer.max_actor_ckpt_to_keep={kept}"])
    assert checkpoints_on_disk(config, steps) == most


@pytest.mark.parametrize(("free_gib", "level"), [(300, PROBLEM), (500, OK)])
def test_disk(free_gib, level, tmp_path, monkeypatch):
    """600 rows in steps of 512 are one step per epoch; five of 85.1 GiB each are 425 GiB."""
    monkeypatch.setattr(checkpoint_plan.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(free_gib * GIB))
    settings = ("trainer.save_freq=20", "trainer.total_epochs=100", f"trainer.default_local_dir={tmp_path}/new/run")
    config = with_settings((*COMMON, *BASE_7B, *data_settings(tmp_path), *settings))
    findings = list(check_disk(config, read_model_shape(config), read_parallelism(config)))
    assert [finding.level for finding in findings] == [level]
    assert "85.1 GiB" in findings[0].text
    assert "up to 5" in findings[0].text
    assert f"{free_gib}.0 GiB are free in {tmp_path}" in findings[0].text


def test_a_run_that_saves_nothing_or_continues_another_is_noted(tmp_path):
    assert "nothing is saved" in next(check_checkpoints(with_settings(["trainer.save_freq=-1"]))).text
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("40")
    config = with_settings(
        ["trainer.save_freq=10", "trainer.n_gpus_per_node=1", f"trainer.default_local_dir={tmp_path}"]
    )
    (missing,) = check_checkpoints(config)
    assert missing.level == PROBLEM
    assert "there is no checkpoint of step 40" in missing.text
    actor = tmp_path / "global_step_40/actor"
    actor.mkdir(parents=True)
    for part in ("model", "optim", "extra_state"):
        (actor / f"{part}_world_size_1_rank_0.pt").write_bytes(b"x")
    torch.save({}, tmp_path / "global_step_40/data.pt")
    findings = list(check_checkpoints(config))
    assert [finding.level for finding in findings] == [NOTE]
    assert "after step 40" in findings[0].text
    assert list(check_checkpoints(with_settings(["trainer.resume_mode=disable"], config))) == []
