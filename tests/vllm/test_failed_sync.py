"""A weight sync that fails inside the engine ends the training with the reason, where verl alone waits forever.

Derivation: with verl's own worker extension vLLM's CPU back end has packed its weights away, so the first sync fails in
the engine (see verl_ispo/cpu/vllm_worker.py), as a wrong shape or a full memory does on a GPU. Without the watch
(verl_ispo/trainer/verl_workarounds/failed_weight_sync.py) this test ends by its time limit.
"""

from __future__ import annotations

import pytest

from tests.training.conftest import Train
from verl_ispo.launch.stop_reason import find_reason

pytestmark = pytest.mark.trainer

VERLS_EXTENSION = "verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension"


def test_a_failed_weight_sync_ends_the_training(train: Train) -> None:
    extension = f"actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls={VERLS_EXTENSION}"
    run = train("trainer.total_training_steps=1", extension, backend="cpu_vllm")
    assert run.exit_status != 0
    assert not run.steps
    assert "WeightSyncError: rollout engine 0 has failed to load the weights" in run.output
    assert "'Parameter' object has no attribute 'weight_loader'" in find_reason(run.output.splitlines())
