"""Context: the longest prompt and the longest response fit into the model together, in the trainer and in the rollout.

Qwen2.5-Math has a context of 4096, so the paper's 4096 new tokens do not fit after any prompt. Published recipes raise
``max_position_embeddings`` (DAPO's 7B run on verl: 32768; LUFFY: 16384 with ``rope_theta`` 40000) or shorten the
response (SimpleRL: 3072).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import longest_sequence, setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.model_shape import ModelShape

ROLLOUT, MODEL = "actor_rollout_ref.rollout", "actor_rollout_ref.model"
OVERRIDE = f"{MODEL}.override_config.max_position_embeddings"
VLLM_OVERRIDE = f"{ROLLOUT}.engine_kwargs.vllm.hf_overrides.max_position_embeddings"
VLLM_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"


def check_context(config: DictConfig, shape: ModelShape | None, published: ModelShape | None) -> Iterator[Finding]:
    """Lengths against the model's positions and the rollout's limits.

    Args:
        config (`DictConfig`): the composed config.
        shape (`ModelShape`, *optional*): with ``override_config``, as the trainer reads it.
        published (`ModelShape`, *optional*): the config.json alone, as the rollout engine reads it.
    """
    yield from _check_rollout_lengths(config)
    if shape is None or published is None:
        yield Finding(
            NOTE,
            f"{MODEL}.path",
            f"{setting(config, f'{MODEL}.path')}: shape unknown on this machine, so context, head counts and "
            "memory are "
            "not checked; give a local folder with its config.json",
        )
        return
    needed, available = longest_sequence(config), shape.max_position_embeddings
    limit = setting(config, f"{ROLLOUT}.max_model_len", available)
    prompt, response = setting(config, "data.max_prompt_length"), setting(config, "data.max_response_length")
    lengths = f"data.max_prompt_length={prompt} plus data.max_response_length={response} is {needed} tokens"
    if limit > available:
        yield Finding(
            PROBLEM,
            f"{ROLLOUT}.max_model_len",
            f"is {limit}, more than the model's {available} positions, which verl refuses; set it to "
            f"{available} or null",
        )
    elif needed > available:
        yield Finding(PROBLEM, "data.max_response_length", f"{lengths}; {_remedies(config, needed, available, prompt)}")
    elif needed > limit:
        yield Finding(
            PROBLEM,
            f"{ROLLOUT}.max_model_len",
            f"is {limit}, but {lengths}, so long responses would silently be cut short; set it to {needed} or null",
        )
    else:
        yield Finding(OK, "context", f"{lengths}, of {min(limit, available)}")
    yield from _check_engine_context(config, min(limit, available), published)


def _remedies(config: DictConfig, needed: int, available: int, prompt: int) -> str:
    shorter = f"data.max_response_length={available - prompt}" if prompt < available else "a shorter prompt"
    raised = f"+{OVERRIDE}={needed}"
    if setting(config, f"{ROLLOUT}.name") == "vllm":
        raised += f" +{VLLM_OVERRIDE}={needed}"
    return (
        f"the model has {available} positions, and long responses would silently be cut short. Shorten "
        f"({shorter}), or raise the context: {raised}, or max_position_embeddings in the config.json of a copy of the "
        "model (published recipes for Qwen2.5-Math: 32768 as it is, or 16384 with rope_theta 40000). Positions beyond "
        f"{available} are ones that the model has not been trained on"
    )


def _check_rollout_lengths(config: DictConfig) -> Iterator[Finding]:
    for key, source in (("prompt_length", "data.max_prompt_length"), ("response_length", "data.max_response_length")):
        rollout, data = setting(config, f"{ROLLOUT}.{key}"), setting(config, source)
        if rollout != data:
            yield Finding(
                PROBLEM,
                f"{ROLLOUT}.{key}",
                f"is {rollout}, but {source} is {data}; leave {ROLLOUT}.{key} out, it follows {source}",
            )


def _check_engine_context(config: DictConfig, model_length: int, published: ModelShape) -> Iterator[Finding]:
    """verl passes max_model_len to the engine, which compares it with the config.json, not with verl's override."""
    own = published.max_position_embeddings
    if model_length <= own:
        return
    name = setting(config, f"{ROLLOUT}.name")
    if name == "vllm":
        engine = setting(config, VLLM_OVERRIDE, own)
        environment = setting(
            config, f"ray_kwargs.ray_init.runtime_env.env_vars.{VLLM_LONG}", os.environ.get(VLLM_LONG)
        )
        if engine < model_length and str(environment) != "1":
            yield Finding(
                PROBLEM,
                VLLM_OVERRIDE,
                f"vLLM gets max_model_len={model_length} and reads {engine} positions in the model's own config.json, "
                f"where {OVERRIDE} does not reach it, and refuses to start. Add "
                f"+{VLLM_OVERRIDE}={model_length}, or change "
                "max_position_embeddings in the config.json of a copy of the model",
            )
    elif name == "sglang":
        keys = [f"{ROLLOUT}.engine_kwargs.sglang.{key}" for key in ("context_length", "json_model_override_args")]
        if all(setting(config, key) is None for key in keys):
            yield Finding(
                PROBLEM,
                OVERRIDE,
                f"raises {own} to {model_length} in the trainer alone: verl hands SGLang no context length, so it "
                f"stays at {own}, while verl asks it for more (read). Change max_position_embeddings in the "
                f"config.json of a copy of the model, or set one of {', '.join('+' + key for key in keys)}",
            )
    elif name != "cpu":  # whose server reads the trainer's config
        yield Finding(
            NOTE,
            OVERRIDE,
            f"raises {own} to {model_length} in the trainer; whether rollout.name={name} follows is not "
            "checked. Changing max_position_embeddings in the config.json of a copy of the model reaches both",
        )
