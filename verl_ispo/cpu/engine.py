"""verl's FSDP2 engine, registered for the CPU."""

from __future__ import annotations

import dataclasses

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


@EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device=["cpu"])
class CPUFSDP2EngineWithLMHead(FSDPEngineWithLMHead):
    """The same engine; only the reference policy's offload to pinned host memory is left out, which needs a GPU."""

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        engine_config = self.engine_config
        self.engine_config = dataclasses.replace(engine_config, forward_only=False, offload_policy=False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            self.engine_config = engine_config
