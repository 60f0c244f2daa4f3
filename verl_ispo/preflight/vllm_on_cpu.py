"""What verl's vLLM rollout needs on a CPU, and which build of vLLM a config needs."""

from __future__ import annotations

import os
from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import setting
from verl_ispo.preflight.finding import NOTE, PROBLEM, Finding

ROLLOUT = "actor_rollout_ref.rollout"
EXTENSION = f"{ROLLOUT}.engine_kwargs.vllm.worker_extension_cls"
RELOADABLE = "verl_ispo.cpu.vllm_worker.ReloadableCPUWorkerExtension"
THREADS_BIND = "VLLM_CPU_OMP_THREADS_BIND"
SETUP = "source scripts/setup_vllm_cpu.sh"


def is_vllm_on_cpu(config: DictConfig) -> bool:
    """Whether vLLM makes the rollouts of a training on a CPU."""
    return setting(config, f"{ROLLOUT}.name") == "vllm" and setting(config, "trainer.device") == "cpu"


def check_vllm_on_cpu(config: DictConfig) -> Iterator[Finding]:
    """The settings of ``backend=cpu_vllm`` that a training on a CPU cannot do without."""
    if not is_vllm_on_cpu(config):
        return
    extension = setting(config, EXTENSION)
    if extension is None:
        yield Finding(
            PROBLEM,
            EXTENSION,
            "is not set: vLLM's CPU back end packs its weights once, so verl's first weight sync would fail. "
            f"Choose backend=cpu_vllm, or set +{EXTENSION}={RELOADABLE}",
        )
    elif extension != RELOADABLE:
        yield Finding(
            NOTE,
            EXTENSION,
            f"is {extension}, which has to keep the weights loadable; make it a subclass of {RELOADABLE}",
        )
    for key in ("free_cache_engine", "enable_sleep_mode"):
        if setting(config, f"{ROLLOUT}.{key}", True):
            yield Finding(
                PROBLEM,
                f"{ROLLOUT}.{key}",
                f"is true, and vLLM can sleep on a GPU alone; choose backend=cpu_vllm, or set {ROLLOUT}.{key}=false",
            )
    key = f"ray_kwargs.ray_init.runtime_env.env_vars.{THREADS_BIND}"
    bound = setting(config, key, os.environ.get(THREADS_BIND))
    if str(bound) != "nobind":
        yield Finding(
            NOTE,
            key,
            f"is {bound or 'not set'}: vLLM then binds its threads to cores that the trainer's workers need, too. "
            f"Choose backend=cpu_vllm, or set +{key}=nobind",
        )


def wrong_build(config: DictConfig, version: str) -> Finding | None:
    """The build of vLLM that is installed, if it is not for the device of the training.

    Args:
        config (`DictConfig`): with vLLM as the rollout engine.
        version (`str`): of the installed distribution ``vllm``; vLLM's CPU builds end in ``+cpu``.
    """
    on_cpu = is_vllm_on_cpu(config)
    if on_cpu and "cpu" not in version:
        return Finding(
            PROBLEM,
            "vllm",
            f"{version} is a build for GPUs, and trainer.device=cpu; its CPU build has another environment: {SETUP}",
        )
    if not on_cpu and "cpu" in version:
        return Finding(
            PROBLEM,
            "vllm",
            f"{version} is the CPU build, and the training is for {setting(config, 'trainer.device')}; use another "
            "environment with pip install 'verl_ispo[gpu]'",
        )
    return None
