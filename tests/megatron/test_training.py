"""A whole training with ``ispo_megatron_trainer`` on two tensor-parallel ranks is the training with FSDP2 on one.

Stock verl, this project's configs, the CPU rollout; the ablated rows in the pass of the old log-probs; saved,
validated, resumed. What goes wrong in general: a step between the engines' numbers and the trainer's (which ranks give
rows, which weights reach the rollout, which files are a checkpoint) is right for FSDP alone.

Derivation: each rollout has a seed of its own and is sampled in float64 from float32 weights, so both runs write the
same rollouts until rounding in the weights passes a sampling threshold; every metric of a step then agrees up to the
order of sums. The policies at the end are compared as transformers loads them from the folders that the evaluation
finds.

Not exercised: vLLM and SGLang behind Megatron, the asynchronous modes, the rest as in test_engine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.conftest import THREE_STEPS, TinyTask, Train, TrainingRun, finished
from verl_ispo.evaluation.model_folder import resolve_checkpoint

pytestmark = [pytest.mark.trainer, pytest.mark.volume]

COMPARED = ("ispo/", "critic/", "actor/", "response_length/", "response/", "prompt_length/", "val-core/", "val-aux/")
MERGED = ("trainer.v1.ispo.ablated_pass=merged", "actor_rollout_ref.actor.optim.weight_decay=0")
TWO_RANKS = (
    "actor_rollout_ref.model.external_lib=cpu_megatron_engine",
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2",
    "actor_rollout_ref.ref.megatron.tensor_model_parallel_size=2",
    "trainer.n_gpus_per_node=2",
)


@pytest.fixture(scope="module")
def even_model(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny task's model with one token more, so that two ranks can share its vocabulary: as likely as byte 0."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("even") / "model"
    shutil.copytree(tiny_task.model, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    size = model.config.vocab_size
    model.resize_token_embeddings(size + 1)
    with torch.no_grad():
        for part in (model.get_input_embeddings(), model.get_output_embeddings()):
            part.weight[size] = part.weight[0]
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == size + 1 == 260
    return folder


@pytest.fixture(scope="module")
def fsdp(train: Train, sums: tuple[str, ...], even_model: Path) -> TrainingRun:
    return finished(train(*sums, *THREE_STEPS, *MERGED, model=even_model))


@pytest.fixture(scope="module")
def megatron(train: Train, sums: tuple[str, ...], even_model: Path) -> TrainingRun:
    settings = (*sums, *THREE_STEPS, *MERGED, *TWO_RANKS)
    return finished(train(*settings, model=even_model, config_name="ispo_megatron_trainer"))


def compared(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(COMPARED) and "perf/" not in name}


def test_three_steps_are_fsdps(fsdp: TrainingRun, megatron: TrainingRun) -> None:
    assert megatron.steps.keys() == fsdp.steps.keys() == {1, 2, 3}
    for step, expected in fsdp.steps.items():
        found = compared(megatron.steps[step])
        assert len(found) > 40
        assert found == pytest.approx({name: compared(expected)[name] for name in found}, rel=2e-4, abs=2e-4)


def test_a_resumed_run_makes_the_step_that_was_next(
    train: Train, megatron: TrainingRun, sums: tuple[str, ...], even_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(megatron.checkpoints / "global_step_2", tmp_path / "global_step_2")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("2")
    settings = (*sums, *THREE_STEPS, *MERGED, *TWO_RANKS)
    resumed = finished(train(*settings, model=even_model, config_name="ispo_megatron_trainer", checkpoints=tmp_path))
    assert resumed.steps.keys() == {3}
    assert compared(resumed.steps[3]) == pytest.approx(compared(megatron.steps[3]), rel=1e-6, abs=1e-6)


def test_the_evaluation_finds_the_trained_policy(fsdp: TrainingRun, megatron: TrainingRun) -> None:
    """FSDP's merger writes bfloat16."""
    from transformers import AutoModelForCausalLM

    found, expected = (
        AutoModelForCausalLM.from_pretrained(resolve_checkpoint(str(run.checkpoints)).folder, dtype=torch.float32)
        for run in (megatron, fsdp)
    )
    wanted = expected.state_dict()
    for name, weight in found.state_dict().items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-2, atol=1e-3, msg=name)
