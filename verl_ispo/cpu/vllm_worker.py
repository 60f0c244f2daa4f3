"""verl's extension of vLLM's worker, for a CPU: weights that can be loaded again.

vLLM's CPU back end packs each linear layer for oneDNN after the first loading and drops the weight itself
(``dispatch_cpu_unquantized_gemm(remove_weight=True)`` of vllm/model_executor/layers/utils.py), so verl's weight
sync has nothing to load into: ``'Parameter' object has no attribute 'weight_loader'``. Without oneDNN the same function
keeps the weight and uses torch's linear.

Chosen by the configuration (``backend=cpu_vllm``), in vLLM's worker process alone:
``actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls``.
"""

from __future__ import annotations

from typing import Any

import vllm._custom_ops as vllm_ops
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


class ReloadableCPUWorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension, in a worker without oneDNN's packed linear layers."""

    def __new__(cls, **kwargs: Any) -> ReloadableCPUWorkerExtension:
        # before the model is loaded; vLLM has no setting for it
        vllm_ops._supports_onednn = False
        return super().__new__(cls, **kwargs)
