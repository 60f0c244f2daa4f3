"""Settings of Megatron that stop it after the workers have started, or change numbers without a word.

Each was run with verl 0.9.1, megatron-core 0.18 and Megatron-Bridge 0.5 (tests/megatron).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig
from packaging.version import Version

from verl_ispo.preflight.composition import Parallelism, setting
from verl_ispo.preflight.divisors import nearest_divisor
from verl_ispo.preflight.finding import NOTE, PROBLEM, Finding
from verl_ispo.preflight.model_shape import ModelShape
from verl_ispo.preflight.packages import InstalledVersion, installed_version

ACTOR = "actor_rollout_ref.actor"
MEGATRON, OPTIM = f"{ACTOR}.megatron", f"{ACTOR}.optim"
PIPELINE = f"{MEGATRON}.pipeline_model_parallel_size"
VIRTUAL = f"{MEGATRON}.virtual_pipeline_model_parallel_size"
OVERRIDE = f"{MEGATRON}.override_transformer_config"
UNEVEN_KEYS = (
    "num_layers_in_first_pipeline_stage",
    "num_layers_in_last_pipeline_stage",
    "pipeline_model_parallel_layout",
    "account_for_embedding_in_pipeline_split",
    "account_for_loss_in_pipeline_split",
)
TIED_STOPS = Version("0.5.1")
MOST_PADDING = 128
"""Megatron-Bridge pads to a multiple of this at most."""


def check_megatron_model(
    config: DictConfig,
    parallelism: Parallelism,
    shape: ModelShape,
    installed: InstalledVersion = installed_version,
) -> Iterator[Finding]:
    """Vocabulary and layers against the sizes that divide them."""
    if not parallelism.is_megatron:
        return
    yield from _check_vocabulary(config, parallelism, shape)
    yield from _check_layers(config, parallelism, shape, installed("megatron-bridge"))


def check_learning_rate(config: DictConfig) -> Iterator[Finding]:
    """The schedule of the learning rate, which verl saves and by default does not load again."""
    if setting(config, f"{ACTOR}.strategy") != "megatron":
        return
    switch = f"{OPTIM}.use_checkpoint_opt_param_scheduler"
    varying = [key for key in ("lr_warmup_steps", "lr_warmup_steps_ratio") if setting(config, f"{OPTIM}.{key}", 0) > 0]
    varying += ["lr_decay_style"] if setting(config, f"{OPTIM}.lr_decay_style", "constant") != "constant" else []
    if varying and not setting(config, switch, False) and setting(config, "trainer.resume_mode") != "disable":
        key = f"{OPTIM}.{varying[0]}"
        yield Finding(
            PROBLEM,
            key,
            f"is {setting(config, key)}, and a start that resumes would begin that schedule again, since verl saves "
            f"Megatron's schedule and does not load it; set {switch}=true",
        )


def _check_vocabulary(config: DictConfig, parallelism: Parallelism, shape: ModelShape) -> Iterator[Finding]:
    key, size, padding = f"{MEGATRON}.tensor_model_parallel_size", parallelism.tensor, f"{OVERRIDE}.should_pad_vocab"
    if setting(config, padding, False):
        multiple = math.gcd(shape.vocab_size, MOST_PADDING) * size
        if shape.vocab_size % multiple:
            yield Finding(
                PROBLEM,
                padding,
                f"is true, which pads the vocabulary of {shape.vocab_size} to a multiple of {multiple}; nothing masks "
                "the padding's logits, so every log-prob would be off. Leave it out",
            )
    elif shape.vocab_size % size:
        heads = math.gcd(shape.num_attention_heads, parallelism.gpus)
        yield Finding(
            PROBLEM,
            key,
            f"is {size}, which does not divide the model's vocabulary of {shape.vocab_size}; Megatron gives each rank "
            "an equal part of embedding and output head. Set "
            f"{nearest_divisor(math.gcd(shape.vocab_size, heads), size)}",
        )


def _check_layers(
    config: DictConfig, parallelism: Parallelism, shape: ModelShape, bridge: str | None
) -> Iterator[Finding]:
    stages, layers, virtual = parallelism.pipeline, shape.num_hidden_layers, setting(config, VIRTUAL)
    if virtual is not None and stages == 1:
        yield Finding(PROBLEM, VIRTUAL, f"is {virtual} without a pipeline; set {VIRTUAL}=null, or {PIPELINE}")
        return
    if virtual is not None and shape.tie_word_embeddings:
        stops = bridge is not None and Version(bridge) <= TIED_STOPS
        yield Finding(
            PROBLEM if stops else NOTE,
            VIRTUAL,
            f"is {virtual}, and the model's output head is its embedding: Megatron-Bridge up to {TIED_STOPS} cannot "
            f"load such a model onto a virtual pipeline (its pull request 4694); set {VIRTUAL}=null there",
        )
    if any(setting(config, f"{OVERRIDE}.{key}") for key in UNEVEN_KEYS):
        return
    split = f"or say how to split them: +{OVERRIDE}.{UNEVEN_KEYS[0]}=..."
    if layers % stages:
        yield Finding(
            PROBLEM,
            PIPELINE,
            f"is {stages}, which does not divide the model's {layers} layers. Set {PIPELINE}="
            f"{nearest_divisor(math.gcd(layers, parallelism.gpus), stages)}, {split}",
        )
    elif virtual is not None and layers // stages % virtual:
        yield Finding(
            PROBLEM,
            VIRTUAL,
            f"is {virtual}, which does not divide the {layers // stages} layers of a stage. Set {VIRTUAL}="
            f"{nearest_divisor(layers // stages, virtual)}, {split}",
        )
