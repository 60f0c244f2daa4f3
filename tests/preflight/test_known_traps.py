"""Each known trap is a PROBLEM that names key, value and remedy; the remedy removes it; the paper's set-ups have none.

All on real composed configs. verl's own functions are the reference where they can be called: its validation, its
micro-batching, its override of the model's config.

Not exercised: that the workers of a GPU run stop where these checks say so (read in verl's source), SGLang,
TensorRT-LLM.
"""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import Qwen2Config
from verl.utils.model import update_model_config
from verl.utils.seqlen_balancing import rearrange_micro_batches

from tests.preflight.set_ups import (
    BASE_7B,
    COMMON,
    CONTEXT,
    MATH_1_5B,
    MATH_7B,
    VLLM_CONTEXT,
    all_findings,
    composed,
    data_settings,
    problems,
    with_settings,
    write_model,
)
from verl_ispo.preflight.finding import NOTE, OK

ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"


@pytest.mark.parametrize(
    ("name", "presets", "settings"),
    [
        ("ispo_trainer", (), MATH_1_5B),
        ("ispo_trainer", (), MATH_7B),
        ("ispo_trainer", (), BASE_7B),
        ("ispo_trainer", ("method=grpo",), MATH_7B),
        ("ispo_trainer", ("method=dapo",), MATH_7B),
        ("ispo_trainer", ("method=ispo_guarded",), BASE_7B),
        ("ispo_trainer", (), (*MATH_7B, f"{ACTOR}.strategy=fsdp2", f"{ACTOR}.ulysses_sequence_parallel_size=2")),
        ("ispo_megatron_trainer", (), (*MATH_7B, f"{ACTOR}.megatron.tensor_model_parallel_size=4")),
    ],
)
def test_the_papers_set_ups_on_8_gpus_of_80_gb_have_no_problem(name, presets, settings, tmp_path):
    preset = composed(name, *presets)
    config = with_settings((*COMMON, *settings, *data_settings(tmp_path)), preset)
    findings = all_findings(config, preset)
    assert problems(findings) == {}
    changed = {finding.subject for finding in findings if "the paper's" in finding.text and finding.level == NOTE}
    assert not changed  # 8192 new tokens are the paper's own for Qwen2.5-7B


def test_the_quickstarts_settings_on_a_cpu_have_no_problem(tmp_path):
    """As examples/tiny_run.sh gives them."""
    preset = composed("ispo_trainer", "backend=cpu")
    settings = (
        f"{MODEL}.path={write_model(tmp_path / 'model')}",
        "data.train_batch_size=16",
        "data.max_prompt_length=32",
        "data.max_response_length=96",
        f"{ACTOR}.ppo_mini_batch_size=8",
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=64",
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=128",
        "reward.custom_reward_function.path=pkg://verl_ispo.tiny_task.reward",
    )
    assert problems(all_findings(with_settings((*data_settings(tmp_path), *settings), preset), preset)) == {}


# trap: settings, the key that is blamed, what the text has to name, settings that remove it
TRAPS = {
    "context of Qwen2.5-Math": (
        (f"{MODEL}.path=Qwen/Qwen2.5-Math-7B", f"{MODEL}.override_config={{}}"),
        "data.max_response_length",
        ("1024", "4096", "5120 tokens", "data.max_response_length=3072", f"+{CONTEXT}=5120 +{VLLM_CONTEXT}=5120"),
        ("data.max_response_length=3072",),
    ),
    "vLLM does not see verl's override": (
        (*MATH_7B, f"{VLLM_CONTEXT}=null"),
        VLLM_CONTEXT,
        ("5120", "4096", f"+{VLLM_CONTEXT}=5120"),
        ("ray_kwargs.ray_init.runtime_env.env_vars.VLLM_ALLOW_LONG_MAX_MODEL_LEN='1'",),
    ),
    "rollout cuts": (
        (f"{ROLLOUT}.max_model_len=4096",),
        f"{ROLLOUT}.max_model_len",
        ("4096", "5120"),
        (f"{ROLLOUT}.max_model_len=5120",),
    ),
    "rollout longer than the model": (
        (f"{ROLLOUT}.max_model_len=8192",),
        f"{ROLLOUT}.max_model_len",
        ("8192", "5120"),
        (f"{ROLLOUT}.max_model_len=5120",),
    ),
    "two response lengths": (
        (f"{ROLLOUT}.response_length=2048",),
        f"{ROLLOUT}.response_length",
        ("2048", "4096"),
        (f"{ROLLOUT}.response_length=4096",),
    ),
    "rope_theta through the override": (
        (f"{MODEL}.override_config.rope_theta=40000",),
        f"{MODEL}.override_config.rope_theta",
        ("config.json", "no effect"),
        (),
    ),
    "mini-batch not divisible": (
        (f"{ACTOR}.ppo_mini_batch_size=255", f"{ROLLOUT}.n=5"),
        f"{ACTOR}.ppo_mini_batch_size",
        ("255", "1275 rows", "8 data-parallel ranks", "multiple of 8", "such as 256"),
        (f"{ACTOR}.ppo_mini_batch_size=256",),
    ),
    "micro-batch not divisible": (
        (
            f"{ACTOR}.use_dynamic_bsz=false",
            f"{ACTOR}.ppo_micro_batch_size_per_gpu=48",
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=16",
        ),
        f"{ACTOR}.ppo_micro_batch_size_per_gpu",
        ("48", "256 rows", "ppo_micro_batch_size_per_gpu=32"),
        (f"{ACTOR}.ppo_micro_batch_size_per_gpu=32",),
    ),
    "no micro-batch size": (
        (f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size_per_gpu=8"),
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
        ("null", "log_prob_micro_batch_size_per_gpu=8"),
        (f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=8",),
    ),
    "half of the passes by tokens": (
        (f"{ROLLOUT}.log_prob_use_dynamic_bsz=false", f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=8"),
        f"{ROLLOUT}.log_prob_use_dynamic_bsz",
        ("False", "True"),
        (f"{ROLLOUT}.log_prob_use_dynamic_bsz=true",),
    ),
    "token budget": (
        (f"{ACTOR}.ppo_max_token_len_per_gpu=4096",),
        f"{ACTOR}.ppo_max_token_len_per_gpu",
        ("4096", "5120"),
        (f"{ACTOR}.ppo_max_token_len_per_gpu=5120",),
    ),
    "token budget of two ranks": (
        (f"{ACTOR}.ppo_max_token_len_per_gpu=2000", f"{ACTOR}.ulysses_sequence_parallel_size=2"),
        f"{ACTOR}.ppo_max_token_len_per_gpu",
        ("2000 x 2", "5120", "=2560"),
        (f"{ACTOR}.ppo_max_token_len_per_gpu=2560",),
    ),
    "vLLM's token budget": (
        (f"{ROLLOUT}.max_num_batched_tokens=200",),
        f"{ROLLOUT}.max_num_batched_tokens",
        ("200", "256"),
        (f"{ROLLOUT}.max_num_batched_tokens=256",),
    ),
    "rollout engine larger than the machine": (
        (f"{ROLLOUT}.tensor_model_parallel_size=4", "trainer.n_gpus_per_node=6"),
        f"{ROLLOUT}.tensor_model_parallel_size",
        ("4", "6", "tensor_model_parallel_size=3"),
        ("trainer.n_gpus_per_node=8",),
    ),
    "heads and Ulysses": (
        (f"{ACTOR}.ulysses_sequence_parallel_size=8",),
        f"{ACTOR}.ulysses_sequence_parallel_size",
        ("8", "28 attention heads", "set 4"),
        (f"{ACTOR}.ulysses_sequence_parallel_size=4",),
    ),
    "key-value heads and the rollout": (
        (f"{ROLLOUT}.tensor_model_parallel_size=14", "trainer.n_gpus_per_node=14"),
        f"{ROLLOUT}.tensor_model_parallel_size",
        ("14", "4 key-value heads", "set 2"),
        (f"{ROLLOUT}.tensor_model_parallel_size=2",),
    ),
    "Ulysses without packing": (
        (f"{ACTOR}.ulysses_sequence_parallel_size=2", f"{MODEL}.use_remove_padding=false"),
        f"{MODEL}.use_remove_padding",
        ("false", "2"),
        (f"{MODEL}.use_remove_padding=true",),
    ),
    "separate rollout": (
        (
            "trainer.v1.trainer_mode=ispo_separate_async",
            f"{ROLLOUT}.nnodes=1",
            f"{ROLLOUT}.checkpoint_engine.backend=nccl",
        ),
        "trainer.v1.separate_async.parameter_sync_step",
        ("4", "256", "512", "ppo_mini_batch_size=128"),
        (f"{ACTOR}.ppo_mini_batch_size=128",),
    ),
    "separate rollout without GPUs": (
        (
            "trainer.v1.trainer_mode=ispo_separate_async",
            f"{ACTOR}.ppo_mini_batch_size=128",
            f"{ROLLOUT}.checkpoint_engine.backend=nccl",
        ),
        f"{ROLLOUT}.nnodes",
        ("0", "nnodes=1"),
        (f"{ROLLOUT}.nnodes=1",),
    ),
    "draws that do not add up": (
        ("data.gen_batch_size=100",),
        "data.gen_batch_size",
        ("100", "512", "gen_batch_size=64"),
        ("data.gen_batch_size=64",),
    ),
    "more prompts than there are": (
        ("data.train_batch_size=1024",),
        "data.train_batch_size",
        ("1024", "600 rows"),
        ("data.train_batch_size=512",),
    ),
    "stock trainer mode": (
        ("trainer.v1.trainer_mode=sync",),
        "trainer.v1.trainer_mode",
        ("sync", "ispo_sync"),
        ("trainer.v1.trainer_mode=ispo_sync",),
    ),
    "contradiction that the trainer refuses": (
        ("algorithm.rollout_correction.bypass_mode=true",),
        "algorithm.rollout_correction.bypass_mode",
        ("bypass_mode=true", "bypass_mode=false"),
        ("algorithm.rollout_correction.bypass_mode=false",),
    ),
    "fused kernels and a sharded output head": (
        (f"{MODEL}.use_fused_kernels=true", f"{ACTOR}.strategy=fsdp2"),
        f"{MODEL}.use_fused_kernels",
        ("true", "strategy=fsdp"),
        (f"{ACTOR}.strategy=fsdp",),
    ),
    "SGLang does not see verl's override": (
        (f"{ROLLOUT}.name=sglang",),
        CONTEXT,
        ("4096", "5120", "config.json", "engine_kwargs.sglang.context_length"),
        (f"{ROLLOUT}.engine_kwargs.sglang.context_length=5120",),
    ),
    "memory of the update": (
        (f"{ACTOR}.ppo_max_token_len_per_gpu=65536",),
        "memory, update",
        ("80 GiB", "65536 tokens", "use_fused_kernels=true"),
        (f"{ACTOR}.ppo_max_token_len_per_gpu=16384",),
    ),
    "memory of the rollout": (
        (f"{ROLLOUT}.gpu_memory_utilization=0.95",),
        "memory, rollout",
        ("80 GiB", "gpu_memory_utilization", "param_offload=true"),
        (f"{ROLLOUT}.gpu_memory_utilization=0.6",),
    ),
    "no KV cache": (
        (f"{ROLLOUT}.gpu_memory_utilization=0.1",),
        f"{ROLLOUT}.gpu_memory_utilization",
        ("0.1", "0 sequence(s) of 5120"),
        (f"{ROLLOUT}.gpu_memory_utilization=0.5",),
    ),
    "scorer's name": (
        ("reward.custom_reward_function.name=grade_all",),
        "reward.custom_reward_function.name",
        ("grade_all", "compute_score"),
        ("reward.custom_reward_function.name=compute_score",),
    ),
    "scorer's module": (
        ("reward.custom_reward_function.path=pkg://verl_ispo.gradin",),
        "reward.custom_reward_function.path",
        ("pkg://verl_ispo.gradin", "cannot be imported"),
        ("reward.custom_reward_function.path=pkg://verl_ispo.grading.reward_function",),
    ),
    "scorer's file": (
        ("reward.custom_reward_function.path=/nowhere/reward.py",),
        "reward.custom_reward_function.path",
        ("/nowhere/reward.py does not exist",),
        ("reward.custom_reward_function.path=pkg://verl_ispo.grading.reward_function",),
    ),
    "resume from nowhere": (
        ("trainer.resume_mode=resume_path", "trainer.resume_from_path=runs/mine"),
        "trainer.resume_from_path",
        ("runs/mine", "global_step_N"),
        ("trainer.resume_mode=auto",),
    ),
    "rollouts that are all equal": (
        (f"{ROLLOUT}.temperature=0",),
        f"{ROLLOUT}.temperature",
        ("all 8 rollouts of a prompt are equal", "temperature=1.0"),
        (f"{ROLLOUT}.temperature=1.0",),
    ),
    "rollouts that are all equal by top_k": (
        (f"{ROLLOUT}.top_k=1",),
        f"{ROLLOUT}.temperature",
        ("top_k 1", "top_k=-1"),
        (f"{ROLLOUT}.top_k=-1",),
    ),
    "a value of the wrong type": (
        ("data.train_batch_size=many",),
        "batch sizes",
        ("TypeError",),
        ("data.train_batch_size=512",),
    ),
    "what verl's own validation says": (
        (f"{ROLLOUT}.val_kwargs.do_sample=true", f"{ROLLOUT}.temperature=0"),
        "verl's validate_config",
        ("temperature",),
        (f"{ROLLOUT}.temperature=1.0",),
    ),
    "what verl's rollout config says": (
        (f"{ROLLOUT}.pipeline_model_parallel_size=2",),
        "verl's RolloutConfig",
        ("pipeline_model_parallel_size",),
        (f"{ROLLOUT}.pipeline_model_parallel_size=1",),
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return (*COMMON, *MATH_7B, *data_settings(tmp_path_factory.mktemp("data")))


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_named_and_its_remedy_helps(trap, sound):
    settings, key, named, remedy = TRAPS[trap]
    config = with_settings((*sound, *settings))
    if trap.startswith("context"):
        OmegaConf.update(config, f"{MODEL}.override_config", {}, merge=False)
    found = problems(all_findings(config))
    assert key in found
    for part in named:
        assert part in found[key]
    if remedy:
        assert key not in problems(all_findings(with_settings(remedy, config)))


def test_a_missing_reference_policy(sound):
    config = with_settings(sound)
    del config.actor_rollout_ref["ref"]
    found = problems(all_findings(config))
    assert "frozen base model" in found["actor_rollout_ref.ref"]
    assert "ispo_trainer" in found["actor_rollout_ref.ref"]


def test_without_signals_no_reference_policy_is_asked_for(sound):
    config = with_settings((*sound, "trainer.v1.ispo.watch_signals=false"), composed("ispo_trainer", "method=grpo"))
    findings = {finding.subject: finding for finding in all_findings(config)}
    assert findings["actor_rollout_ref.ref"].level == OK
    assert "not needed" in findings["actor_rollout_ref.ref"].text


@pytest.mark.parametrize(("settings", "note"), [((), "switched off"), (("adapters/a",), "first step already drifts")])
def test_lora_is_supported_with_the_adapter_off_as_reference(sound, settings, note):
    adapter = (f"{MODEL}.lora_adapter_path={path}" for path in settings)
    findings = all_findings(with_settings((*sound, f"{MODEL}.lora_rank=32", *adapter)))
    reference = [finding for finding in findings if finding.subject == "actor_rollout_ref.ref"]
    assert [finding.level for finding in reference] == [NOTE]
    assert note in reference[0].text
    assert set(problems(findings)) <= {"verl's validate_config"}  # which asks vLLM, where it is installed


def test_a_vision_model_is_refused(sound, tmp_path):
    """Its config nests the text model's shape."""
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 32768}
    model = write_model(tmp_path / "model", model_type="qwen2_5_vl", text_config=text, vision_config={"depth": 1})
    found = problems(all_findings(with_settings((*sound, f"{MODEL}.path={model}"))))
    assert "vision" in found[f"{MODEL}.path"]


def test_an_unknown_model_is_a_note(sound):
    findings = all_findings(with_settings((*sound, f"{MODEL}.path=somebody/some-model")))
    assert problems(findings) == {}
    assert any("shape unknown" in finding.text and finding.level == NOTE for finding in findings)


def test_a_model_folder_without_its_config(sound, tmp_path):
    found = problems(all_findings(with_settings((*sound, f"{MODEL}.path={tmp_path}"))))
    assert "config.json" in found[f"{MODEL}.path"]


def test_padding_is_a_note(sound):
    findings = all_findings(with_settings((*sound, f"{ACTOR}.ppo_mini_batch_size=320")))
    notes = {finding.subject: finding.text for finding in findings if finding.level == NOTE}
    assert problems(findings) == {}
    assert "up to 640 prompts" in notes[f"{ACTOR}.ppo_mini_batch_size"]
    assert "ppo_mini_batch_size=256" in notes[f"{ACTOR}.ppo_mini_batch_size"]


@pytest.mark.parametrize("budget", [5119, 5120])
def test_the_token_budget_is_the_one_that_verl_asserts(budget, sound):
    row = TensorDict(
        {"input_ids": torch.nested.as_nested_tensor([torch.ones(5120)], layout=torch.jagged)}, batch_size=1
    )
    config = with_settings((*sound, f"{ACTOR}.ppo_max_token_len_per_gpu={budget}"))
    found = problems(all_findings(config))
    if budget < 5120:
        with pytest.raises(AssertionError, match="max_token_len must be greater"):
            rearrange_micro_batches(row, max_token_len=budget)
        assert f"{ACTOR}.ppo_max_token_len_per_gpu" in found
    else:
        rearrange_micro_batches(row, max_token_len=budget)
        assert found == {}


def test_rope_settings_do_not_get_through_verls_override():
    """Why `rope_theta` is refused: verl sets an attribute that transformers 5 does not read."""
    model = Qwen2Config(rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    update_model_config(model, {"rope_theta": 40000.0})
    assert model.rope_parameters["rope_theta"] == 10000.0
    with pytest.raises(AttributeError):
        update_model_config(model, {"rope_parameters": {"rope_theta": 40000.0}})
