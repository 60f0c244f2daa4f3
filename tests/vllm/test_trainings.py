"""Trainings with verl's own vLLM server on a CPU, behind ``backend=cpu_vllm``.

Derivation: verl compares the probabilities that the engine sampled with to those that the trainer computes for the same
tokens (``training/rollout_probs_diff_max``). In float32 both are the same model up to the order of sums, so they agree
after every update of the weights, or the engine has other weights. In an asynchronous mode a batch may have been
sampled before the last update, which verl counts (``trajectory_staleness``); the others agree. What goes wrong in
general: weights that do not arrive, arrive late, or lose an adapter train on rollouts of another policy, without an
error.

Not exercised, since they need GPUs: weights through CUDA IPC, sleep and wake-up, CUDA graphs, tensor parallelism. On a
CPU the weights go through shared memory.
"""

from __future__ import annotations

import shutil

import pytest

from tests.training.conftest import Train, TrainingRun, finished
from tests.vllm.stale_worker import NAME as STALE_WORKER

pytestmark = pytest.mark.trainer

# Probabilities. Measured: 3e-6; weights that are one update old: 0.99.
SAME_WEIGHTS = 1e-4
# verl sends weights with an adapter merged into them in bfloat16, whatever the engine's format. Measured: 0.024, on
# average over tokens 4e-4; an adapter that is one update old: 0.98.
SAME_ROUNDED_WEIGHTS = 0.1
DIFFERENCE, STALENESS = "training/rollout_probs_diff_max", "training/off_policy/trajectory_staleness_worst/max"
STEPS = ("trainer.test_freq=1", "trainer.save_freq=-1", "data.val_max_samples=16")
THREE_STEPS = (*STEPS, "trainer.total_training_steps=3")
COLOCATED = ("trainer.v1.trainer_mode=ispo_colocate_async",)
SEPARATE = (
    "trainer.v1.trainer_mode=ispo_separate_async",
    "trainer.v1.separate_async.parameter_sync_step=2",
    # each batch is sampled after the sync of the step before; otherwise all but the first are one sync old
    "trainer.v1.separate_async.num_warmup_batches=0",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=ray_mailbox",
)
# several buckets in each transfer
SMALL_BUCKETS = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=1"
# steps that an adapter is seen to make
LORA = (
    "actor_rollout_ref.model.lora_rank=8",
    "actor_rollout_ref.model.lora_alpha=16",
    "actor_rollout_ref.actor.optim.lr=1e-2",
)
STALE = f"actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls={STALE_WORKER}"


def assert_the_engine_follows(run: TrainingRun, steps: list[int], most: float = SAME_WEIGHTS) -> None:
    """Rollouts of the present weights have their probabilities, after an update as well; the steps are whole."""
    assert sorted(step for step in run.steps if step) == steps
    differences = {step: run.steps[step][DIFFERENCE] for step in steps}
    fresh = [step for step in steps if run.steps[step][STALENESS] == 0]
    print(f"differences {differences}, with the present weights: {fresh}")
    assert fresh[0] == steps[0]
    assert steps[0] > 1 or run.steps[1]["ispo/reward/ifd/std"] > 0
    assert len(steps) == 1 or len(fresh) > 1
    assert max(differences[step] for step in fresh) < most
    for step in steps:
        metrics = run.steps[step]
        assert metrics["actor/grad_norm"] > 0
        assert any(name.startswith("val-core/") for name in metrics)


@pytest.fixture(scope="module")
def synchronous(train: Train) -> TrainingRun:
    """Three steps, the second saved."""
    return finished(train(*THREE_STEPS, "trainer.save_freq=2", SMALL_BUCKETS, backend="cpu_vllm"))


def test_sync(synchronous: TrainingRun) -> None:
    assert_the_engine_follows(synchronous, [1, 2, 3])


def test_resumed(synchronous: TrainingRun, train: Train, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The engine starts with random weights, and gets those of the checkpoint before its first rollout."""
    checkpoints = tmp_path_factory.mktemp("interrupted")
    shutil.copytree(synchronous.checkpoints / "global_step_2", checkpoints / "global_step_2")
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("2")
    run = finished(train(*THREE_STEPS, SMALL_BUCKETS, checkpoints=checkpoints, backend="cpu_vllm"))
    assert_the_engine_follows(run, [3])
    for name, value in synchronous.steps[3].items():
        if name.startswith(("ispo/", "critic/", "val-core/", "response_length")):
            assert run.steps[3][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("mode", [COLOCATED, SEPARATE], ids=["colocate_async", "separate_async"])
def test_asynchronous(mode: tuple[str, ...], train: Train) -> None:
    run = finished(train(*STEPS, "trainer.total_training_steps=4", *mode, backend="cpu_vllm"))
    assert_the_engine_follows(run, [1, 2, 3, 4])
    old = [metrics[DIFFERENCE] for metrics in run.steps.values() if metrics.get(STALENESS, 0) > 0]
    assert all(difference > 100 * SAME_WEIGHTS for difference in old), "of older weights, and told from the others"


@pytest.mark.parametrize("mode", [(), SEPARATE], ids=["sync", "separate_async"])
def test_lora_merged(mode: tuple[str, ...], train: Train) -> None:
    run = finished(train(*THREE_STEPS, *mode, *LORA, backend="cpu_vllm"))
    assert_the_engine_follows(run, [1, 2, 3], SAME_ROUNDED_WEIGHTS)


@pytest.mark.parametrize(("settings", "most"), [((), SAME_WEIGHTS), (LORA, SAME_ROUNDED_WEIGHTS)], ids=["full", "lora"])
def test_stale_weights_are_seen(settings: tuple[str, ...], most: float, train: Train) -> None:
    """A control: an engine that keeps the first weights agrees at the first step alone."""
    run = finished(train(*THREE_STEPS, *settings, STALE, backend="cpu_vllm"))
    first, *later = (run.steps[step][DIFFERENCE] for step in (1, 2, 3))
    print(f"differences {first}, {later}")
    assert first < most
    assert min(later) > 5 * most
