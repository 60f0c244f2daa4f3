"""A worker of vLLM that ignores weights, for controls: what is measured has to see it."""

from __future__ import annotations

from typing import Any

from verl_ispo.cpu.vllm_worker import ReloadableCPUWorkerExtension

NAME = f"{__name__}.StaleWorkerExtension"


class StaleWorkerExtension(ReloadableCPUWorkerExtension):
    """Loads the weights of the first transfer alone, and answers every sender as usual."""

    def update_weights_from_ipc(self, *args: Any, **kwargs: Any) -> None:
        super().update_weights_from_ipc(*args, **kwargs)
        self._has_weights = True

    def _update_weights(self, *args: Any, **kwargs: Any) -> None:
        if not getattr(self, "_has_weights", False):
            super()._update_weights(*args, **kwargs)
