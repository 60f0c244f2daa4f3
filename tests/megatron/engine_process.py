"""verl's actor worker with its Megatron engine on a CPU, on the rows of `tests.trainer.engine_process`.

Run by `tests.megatron.forked_ranks`. A folder holds the models, by name; rank r writes ``VARIANT.r.pt`` there, and a
variant that saves a checkpoint writes it to ``VARIANT``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cpu_megatron_engine
import verl.models.mcore.bridge  # noqa: F401  of the engine, which imports it in the end: here once for all ranks
import torch
from hydra import compose, initialize_config_module
from megatron.core import mpu
from verl.workers.engine_workers import ActorRolloutRefWorker

from tests.trainer.engine_process import ACTOR, MODEL, PACKED, SETTINGS, measured
from verl_ispo.cpu.process_group import join_gloo_group

MEGATRON = f"{ACTOR}.megatron"
ON_CPU = (f"{MODEL}.external_lib={cpu_megatron_engine.__name__}",)
TENSOR = f"{MEGATRON}.tensor_model_parallel_size=2"
PIPELINE = f"{MEGATRON}.pipeline_model_parallel_size=2"
RECOMPUTE = f"{MEGATRON}.override_transformer_config.recompute"
LORA = f"{MODEL}.lora.rank=4"
# An optimizer's state is tied to the sizes that it was saved with; an adapter is not.
WEIGHTS = f"{ACTOR}.checkpoint.load_contents=[model]"
PACKED_BY_ROWS = (f"{MODEL}.use_remove_padding=true",)


@dataclass(frozen=True)
class Variant:
    """One setting.

    Attributes:
        settings: overrides.
        ranks: processes.
        model: folder of the model.
        dtype: of weights and activations.
        saves: whether a checkpoint is written after the first update.
        resumes: the variant whose checkpoint is loaded first.
    """

    settings: tuple[str, ...] = ()
    ranks: int = 1
    model: str = "untied"
    dtype: str = "float32"
    saves: bool = False
    resumes: str = ""


VARIANTS = {
    "padded": Variant(saves=True),
    "resumed": Variant(resumes="padded"),
    "packed": Variant(PACKED_BY_ROWS),
    "dynamic": Variant(PACKED),
    "recompute": Variant((f"{RECOMPUTE}_granularity=full", f"{RECOMPUTE}_method=uniform", f"{RECOMPUTE}_num_layers=1")),
    "chunked_entropy": Variant(
        (*PACKED, f"{ACTOR}.entropy_from_logits_with_chunking=true", f"{ACTOR}.entropy_from_logits_chunk_size=7")
    ),
    "lora": Variant((LORA,), saves=True),
    "lora_resumed": Variant((LORA,), resumes="lora"),
    "lora_weights": Variant((LORA, WEIGHTS), resumes="lora"),
    "bfloat16": Variant(dtype="bfloat16"),
    "tied": Variant(model="tied"),
    "tensor": Variant((TENSOR,), ranks=2, saves=True),
    "tensor_resumed": Variant((TENSOR,), ranks=2, resumes="tensor"),
    "tensor_packed": Variant((TENSOR, *PACKED), ranks=2),
    "tensor_lora": Variant((TENSOR, LORA, WEIGHTS), ranks=2, resumes="lora"),
    "pipeline": Variant((PIPELINE,), ranks=2, saves=True),
    "pipeline_tied": Variant((PIPELINE,), ranks=2, model="tied", saves=True),
    "virtual_pipeline": Variant((PIPELINE, f"{MEGATRON}.virtual_pipeline_model_parallel_size=2"), ranks=2),
    "context": Variant((*PACKED_BY_ROWS, f"{MEGATRON}.context_parallel_size=2"), ranks=2),
    "data": Variant(ranks=2, saves=True),
}


def run(folder: Path, name: str) -> dict[str, torch.Tensor | str]:
    """What one variant gives on this rank."""
    variant = VARIANTS[name]
    os.environ["MEGATRON_ON_CPU_DTYPE"] = variant.dtype
    if mpu.is_initialized():  # the engine would keep the sizes of the variant before
        mpu.destroy_model_parallel()
    with initialize_config_module("verl.trainer.config", version_base=None):
        settings = (*SETTINGS, *ON_CPU, f"{MODEL}.path={folder / variant.model}", *variant.settings)
        config = compose("ispo_megatron_trainer", list(settings))
    torch.manual_seed(0)
    worker = ActorRolloutRefWorker(config.actor_rollout_ref, role="actor")
    worker.init_model()
    if variant.resumes:
        worker.load_checkpoint(str(checkpoint_of(folder, variant.resumes)))

    def save() -> None:
        if variant.saves:
            worker.save_checkpoint(str(checkpoint_of(folder, name)), global_step=1)

    return measured(worker, has_adapter=config.actor_rollout_ref.model.lora.rank > 0, after_update=save)


def checkpoint_of(folder: Path, name: str) -> Path:
    """Where a variant saves, in the layout of verl's trainer."""
    return folder / name / "global_step_1" / "actor"


def run_rank(folder: Path, names: Sequence[str]) -> None:
    """Some variants, one after the other, as the rank that the environment names."""
    join_gloo_group()  # the external library does so when it is imported, which was before this process was forked
    for name in names:
        start = time.monotonic()
        torch.save(run(folder, name), folder / f"{name}.{os.environ['RANK']}.pt")
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
