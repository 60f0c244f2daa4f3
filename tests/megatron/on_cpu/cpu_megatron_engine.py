"""verl's Megatron engine, registered for the CPU; imported through ``actor_rollout_ref.model.external_lib``."""

from __future__ import annotations

import os
from typing import Any

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead

import verl_ispo.cpu.process_group  # noqa: F401  joins the gloo group


@EngineRegistry.register(model_type="language_model", backend="megatron", device=["cpu"])
class CPUMegatronEngineWithLMHead(MegatronEngineWithLMHead):
    """The same engine in float32, which verl's config refuses and the engine itself allows, for exact comparisons.

    MEGATRON_ON_CPU_DTYPE=bfloat16 keeps verl's own.
    """

    def _build_tf_config(self) -> None:
        object.__setattr__(self.engine_config, "dtype", os.environ.get("MEGATRON_ON_CPU_DTYPE", "float32"))
        super()._build_tf_config()

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # In float32 the optimizer's main parameters are views of the model's, not copies
        with torch.no_grad():
            super().load_checkpoint(*args, **kwargs)
