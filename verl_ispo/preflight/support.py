"""Features of verl beside ISPO: each supported, or refused by name.

"Read" means that verl 0.9.1's source was read for it and nothing was run. Refusals here concern the doctor alone; what
the trainer refuses is in `verl_ispo.trainer.refusals`, and is asked too.
"""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import runs_extra_forwards, setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.gpu_memory import lora_rank
from verl_ispo.preflight.model_shape import ModelShape

ACTOR, MODEL, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.model", "actor_rollout_ref.rollout"
READ_STRATEGIES = ("fsdp", "fsdp2", "megatron")


def check_refusals(config: DictConfig) -> Iterator[Finding]:
    """What the trainer itself refuses: its settings, contradictions, and a trainer mode without signals."""
    from verl_ispo.config.rollout_dump_config import split_ispo_settings
    from verl_ispo.trainer.advantage import ISPO_TRAINER_MODES
    from verl_ispo.trainer.refusals import UnsupportedSettingError, refuse_unsupported_settings

    try:
        split_ispo_settings(setting(config, "algorithm.ispo"))
        refuse_unsupported_settings(config)
    except (ValueError, UnsupportedSettingError) as error:
        yield Finding(PROBLEM, "config", str(error))
    mode, use_v1 = setting(config, "trainer.v1.trainer_mode"), setting(config, "trainer.use_v1", False)
    if setting(config, "algorithm.adv_estimator") == "ispo" and (mode not in ISPO_TRAINER_MODES or not use_v1):
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
    yield from _check_fused_kernels(config, strategy)
    if lora_rank(config):
        yield Finding(
            OK, f"{MODEL}.lora", f"rank {lora_rank(config)}: supported (read), with the adapter off as reference"
        )
    yield from _check_data_kinds(config, shape)
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


def _check_fused_kernels(config: DictConfig, strategy: str) -> Iterator[Finding]:
    """verl's fused heads, torch and triton, return log-probs and entropy, which is all that ISPO reads."""
    key = f"{MODEL}.use_fused_kernels"
    if not setting(config, key, False):
        return
    if setting(config, f"{ACTOR}.calculate_sum_pi_squared", False):
        yield Finding(
            PROBLEM,
            key,
            f"is true with {ACTOR}.calculate_sum_pi_squared=true, for which fused kernels have no logits; set "
            "one of them "
            "to false",
        )
    elif strategy == "megatron" and not setting(config, f"{MODEL}.use_remove_padding", False):
        yield Finding(NOTE, key, f"verl switches it off under Megatron without {MODEL}.use_remove_padding=true")
    else:
        yield Finding(OK, key, "supported (read): verl's fused kernels return log-probs and entropy")


def _check_data_kinds(config: DictConfig, shape: ModelShape | None) -> Iterator[Finding]:
    if shape is not None and shape.is_multimodal and runs_extra_forwards(config):
        yield Finding(
            PROBLEM,
            f"{MODEL}.path",
            f"{shape.model_type} has a vision or audio tower: ISPO's ablated prompts are text, and its "
            "multi-dimensional "
            "position ids are refused at the first step. Take a text model",
        )
    key = f"{ROLLOUT}.multi_turn.enable"
    if setting(config, key, False) and runs_extra_forwards(config):
        yield Finding(NOTE, key, "agent loops with several outputs a session are refused at the first step")


def _check_extra_rows(config: DictConfig) -> Iterator[Finding]:
    """ISPO sends rows of its own through the actor; what wants more of a row than tokens does not find it there."""
    for key, remedy in (
        (f"{ROLLOUT}.enable_rollout_routing_replay", "the trace-ablated rows have no routes to replay"),
        (f"{MODEL}.mtp.enable_train", "multi-token prediction has not been read for the trace-ablated rows"),
        ("distillation.enabled", "the trace-ablated rows have no teacher's log-probs"),
    ):
        if setting(config, key, False):
            yield Finding(PROBLEM, key, f"is true: {remedy}. Set {key}=false")
    key = f"{MODEL}.mtp.enable_rollout"
    if setting(config, f"{MODEL}.mtp.enable", False) and setting(config, key, False):
        yield Finding(NOTE, key, "speculative decoding in the rollout does not touch ISPO's rows (read)")
    key = f"{ACTOR}.use_prefix_grouper"
    if setting(config, key, False):
        yield Finding(NOTE, key, "is true, and verl's V1 trainer does not read it")
