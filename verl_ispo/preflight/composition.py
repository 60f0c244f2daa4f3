"""Composing the config as verl's main would, reading its keys, and how it divides the GPUs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from verl_ispo.config.section import refuse_moved_key
from verl_ispo.config.signal_use import observes_signals, trains_on_signals
from verl_ispo.preflight.override_grammar import check_overrides

# These choose whole files; everything else on the command line is a key.
CONFIG_GROUPS = ("method", "backend")
OUR_GRADERS = ("pkg://verl_ispo.grading", "pkg://verl_ispo.grading.reward_function")


def compose_config(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The config that ``python -m verl.trainer.main_ppo --config-name=... overrides`` gets; verl is not imported.

    Raises:
        ModuleNotFoundError: if verl is not installed.
        OverrideError: an override does not parse.
        UnknownISPOKeyError: an override of a key that has moved, of which Hydra only says that it is not there.
    """
    check_overrides(overrides)
    for override in overrides:
        refuse_moved_key(override_key(override))
    verl = importlib.util.find_spec("verl")
    if verl is None or not verl.submodule_search_locations:
        raise ModuleNotFoundError("verl is not installed in this environment; pip install 'verl>=0.9.1,<0.10'")
    folder = Path(verl.submodule_search_locations[0]).resolve() / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose(config_name, overrides=list(overrides))


@cache
def composed_preset(config_name: str, *presets: str) -> DictConfig:
    """A config with presets alone, composed once per process; read-only."""
    config = compose_config(config_name, presets)
    OmegaConf.set_readonly(config, True)
    return config


def preset_overrides(overrides: Sequence[str]) -> list[str]:
    """Those that choose a preset, so that a config can be compared with the preset's own values."""
    return [override for override in overrides if override_key(override) in CONFIG_GROUPS]


def override_key(override: str) -> str:
    """The key of ``+key=value`` and the like."""
    return override.lstrip("+~").split("=", 1)[0]


def setting(config: DictConfig, key: str, default: Any = None) -> Any:
    """The value of a dotted key, or `default` if it is not there or null."""
    value = OmegaConf.select(config, key, default=None)
    return default if value is None else value


def runs_extra_forwards(config: DictConfig) -> bool:
    """Whether ISPO's extra forwards run: to train on them, or to log them under another method."""
    in_ispo_trainer = str(setting(config, "trainer.v1.trainer_mode", "")).startswith("ispo_")
    return trains_on_signals(config) or (in_ispo_trainer and observes_signals(config))


def uses_our_grader(config: DictConfig) -> bool:
    """Whether the reward function is this package's."""
    path = setting(config, "reward.custom_reward_function.path")
    return path is not None and str(path).replace("/", ".").replace("pkg:..", "pkg://") in OUR_GRADERS


@dataclass(frozen=True)
class Parallelism:
    """How the training GPUs are divided.

    Attributes:
        gpus: trainer.nnodes times trainer.n_gpus_per_node.
        strategy: fsdp, fsdp2, megatron, ...
        ulysses: sequence parallel size of FSDP.
        tensor, pipeline, context: of Megatron; 1 under FSDP.
        fsdp_shards: GPUs that FSDP spreads one copy of the weights over.
        replica: GPUs of one rollout engine.
    """

    gpus: int
    strategy: str
    ulysses: int
    tensor: int
    pipeline: int
    context: int
    fsdp_shards: int
    replica: int

    @property
    def is_megatron(self) -> bool:
        """Whether the actor trains with Megatron."""
        return self.strategy == "megatron"

    @property
    def model_parallel(self) -> int:
        """GPUs that work on the same rows."""
        return self.ulysses * self.tensor * self.pipeline * self.context

    @property
    def data(self) -> int:
        """Data-parallel size: FSDP's is gpus / ulysses, Megatron's gpus / (tensor pipeline context)."""
        return self.gpus // self.model_parallel


def read_parallelism(config: DictConfig) -> Parallelism:
    """The sizes by which the config divides its GPUs, as verl's engines read them."""
    gpus = setting(config, "trainer.nnodes") * setting(config, "trainer.n_gpus_per_node")
    actor = "actor_rollout_ref.actor"
    strategy = str(setting(config, f"{actor}.strategy"))
    megatron = f"{actor}.megatron" if strategy == "megatron" else "none"
    # The deprecated key wins where it is set (FSDPActorConfig.__post_init__).
    ulysses = setting(config, f"{actor}.ulysses_sequence_parallel_size", 1)
    if ulysses == 1:
        ulysses = setting(config, f"{actor}.fsdp_config.ulysses_sequence_parallel_size", 1)
    fsdp_size = setting(config, f"{actor}.fsdp_config.fsdp_size", -1)
    rollout = "actor_rollout_ref.rollout"
    return Parallelism(
        gpus=gpus,
        strategy=strategy,
        ulysses=1 if strategy == "megatron" else ulysses,
        tensor=setting(config, f"{megatron}.tensor_model_parallel_size", 1),
        pipeline=setting(config, f"{megatron}.pipeline_model_parallel_size", 1),
        context=setting(config, f"{megatron}.context_parallel_size", 1),
        fsdp_shards=fsdp_size if 0 < fsdp_size < gpus else gpus,
        replica=setting(config, f"{rollout}.tensor_model_parallel_size", 1)
        * setting(config, f"{rollout}.data_parallel_size", 1)
        * setting(config, f"{rollout}.pipeline_model_parallel_size", 1),
    )


def longest_sequence(config: DictConfig) -> int:
    """Tokens of the longest prompt and the longest response together."""
    return setting(config, "data.max_prompt_length") + setting(config, "data.max_response_length")
