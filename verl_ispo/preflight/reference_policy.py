"""Reference policy: the drift filter compares the policy with the frozen base model, so there has to be one."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import runs_extra_forwards, setting
from verl_ispo.preflight.finding import NOTE, OK, Finding
from verl_ispo.preflight.gpu_memory import lora_rank

REF = "actor_rollout_ref.ref"


def check_reference_policy(config: DictConfig) -> Iterator[Finding]:
    """Whether verl will start one, and which model it is."""
    if not runs_extra_forwards(config):
        yield Finding(OK, REF, "not needed: ISPO's signals are off")
        return
    if setting(config, REF) is None:
        return  # refused by the trainer
    adapter = setting(config, "actor_rollout_ref.model.lora_adapter_path")
    if not lora_rank(config) and not adapter:
        yield Finding(OK, REF, "the model of actor_rollout_ref.model.path, frozen")
        return
    start = (
        f". The run starts from the adapter {adapter}, so its first step already drifts from the reference"
        if adapter
        else ""
    )
    yield Finding(
        NOTE, REF, f"with LoRA the reference is the actor with its adapter switched off: no second copy{start}"
    )
