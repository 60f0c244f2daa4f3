"""Features of verl that the trainer does not refuse: supported with ISPO, without effect, or a trap of verl's own.

"Read" means that verl 0.9.1's source was read and nothing was run. What the trainer refuses is in
`verl_ispo.trainer.refusals`, and is reported here.
"""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.config.signal_use import trains_on_signals
from verl_ispo.methods.registry import method_of
from verl_ispo.preflight.composition import runs_extra_forwards, setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.gpu_memory import lora_rank, shards_output_head
from verl_ispo.preflight.model_shape import ModelShape

ACTOR, MODEL, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.model", "actor_rollout_ref.rollout"
READ_STRATEGIES = ("fsdp", "fsdp2", "megatron")


def check_refusals(config: DictConfig) -> Iterator[Finding]:
    """What the trainer itself refuses: its settings, contradictions, and a trainer mode without signals."""
    from verl_ispo.trainer.method_adapter import ISPO_TRAINER_MODES
    from verl_ispo.trainer.refusals import unsupported_settings

    try:
        ISPOConfig.from_mapping(setting(config, "algorithm.ispo"))
    except ValueError as error:
        yield Finding(PROBLEM, "algorithm.ispo", str(error))
    mode, use_v1 = setting(config, "trainer.v1.trainer_mode"), setting(config, "trainer.use_v1", False)
    if mode in ISPO_TRAINER_MODES or trains_on_signals(config):
        for refusal in unsupported_settings(config):
            yield Finding(PROBLEM, refusal.key, refusal.sentence)
    if trains_on_signals(config) and (mode not in ISPO_TRAINER_MODES or not use_v1):
        yield Finding(
            PROBLEM,
            "trainer.v1.trainer_mode",
            f"is {mode} (use_v1={use_v1}), which computes no signals; set one of {', '.join(ISPO_TRAINER_MODES)} and "
            "use_v1=true",
        )


def check_support(config: DictConfig, shape: ModelShape | None) -> Iterator[Finding]:
    """Packing, parallelism, adapters, kernels and the like, next to ISPO's extra forwards."""
    strategy = setting(config, f"{ACTOR}.strategy")
    if strategy not in READ_STRATEGIES:
        yield Finding(
            NOTE, f"{ACTOR}.strategy", f"{strategy} has not been read for ISPO; fsdp, fsdp2 and megatron have"
        )
    yield from _check_packing(config, strategy)
    yield from _check_fused_kernels(config, strategy, shape)
    if lora_rank(config):
        text = f"rank {lora_rank(config)}: supported, with the adapter off as reference"
        yield Finding(OK, f"{MODEL}.lora", text)
    yield from _check_data_kinds(config, shape)
    yield from _check_without_effect(config)
    if runs_extra_forwards(config):
        yield from _check_extra_rows(config)


def _check_packing(config: DictConfig, strategy: str) -> Iterator[Finding]:
    key = f"{MODEL}.use_remove_padding"
    packed = bool(setting(config, key, False))
    ulysses = max(
        setting(config, f"{ACTOR}.ulysses_sequence_parallel_size", 1),
        setting(config, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size", 1),
    )
    if strategy != "megatron" and ulysses > 1 and not packed:
        yield Finding(
            PROBLEM, key, f"is false, and Ulysses' sequence parallelism ({ulysses}) packs sequences; set it to true"
        )
    else:
        yield Finding(
            OK, key, f"{str(packed).lower()}; sequence parallel size {ulysses}: supported" + " (read)" * (ulysses > 1)
        )


def _check_fused_kernels(config: DictConfig, strategy: str, shape: ModelShape | None) -> Iterator[Finding]:
    """verl's fused heads, torch, Liger and triton, return log-probs and entropy, which is all that ISPO reads."""
    key = f"{MODEL}.use_fused_kernels"
    if not setting(config, key, False):
        return
    if strategy == "megatron" and not setting(config, f"{MODEL}.use_remove_padding", False):
        yield Finding(NOTE, key, f"verl switches it off under Megatron without {MODEL}.use_remove_padding=true")
    elif shape is not None and shards_output_head(config, shape):
        yield Finding(
            PROBLEM,
            key,
            "is true, and FSDP2 shards this model's output head on its own, where verl's fused forward finds a shard "
            f"instead of a matrix and ends at the first log-probs; set {ACTOR}.strategy=fsdp or {key}=false",
        )
    else:
        yield Finding(OK, key, "supported: verl's fused kernels return log-probs and entropy")


def _check_data_kinds(config: DictConfig, shape: ModelShape | None) -> Iterator[Finding]:
    from verl_ispo.trainer.refusals import multimodal_refusal, scores_texts

    sends_rows = runs_extra_forwards(config) or scores_texts(method_of(setting(config, "algorithm.adv_estimator")))
    if shape is not None and shape.is_multimodal and sends_rows:
        refusal = multimodal_refusal(str(setting(config, f"{MODEL}.path")))
        yield Finding(PROBLEM, refusal.key, refusal.sentence)
    key = f"{ROLLOUT}.multi_turn.enable"
    if setting(config, key, False) and runs_extra_forwards(config):
        yield Finding(NOTE, key, "agent loops with several outputs per session are refused at the first step")


def _check_without_effect(config: DictConfig) -> Iterator[Finding]:
    """Keys of the actor that only verl's older trainer reads."""
    for key in (f"{ACTOR}.use_prefix_grouper", f"{ACTOR}.calculate_sum_pi_squared"):
        if setting(config, key, False):
            yield Finding(NOTE, key, "is true, and verl's V1 trainer does not read it")


def _check_extra_rows(config: DictConfig) -> Iterator[Finding]:
    """Features that add more than tokens to a rollout: ISPO's rows have none of it, and their forward has no loss."""
    for key in (f"{ROLLOUT}.enable_rollout_routing_replay", f"{MODEL}.mtp.enable_train", "distillation.enabled"):
        if setting(config, key, False):
            yield Finding(NOTE, key, "is true: the forward of ISPO's own rows does not read what it adds (read)")
    key = "reward.reward_model.enable"
    if setting(config, key, False) and not setting(config, "reward.reward_model.enable_resource_pool", False):
        yield Finding(
            NOTE,
            key,
            "is true without a resource pool of its own: ISPO sees only its score, which has to be 0/1 or -1/+1",
        )
