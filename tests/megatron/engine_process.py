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
import torch
import verl.models.mcore.bridge  # noqa: F401  of the engine, which imports it in the end: here once for all ranks
from hydra import compose, initialize_config_module
from megatron.core import mpu
from verl.workers.engine_workers import ActorRolloutRefWorker

from tests.trainer.engine_process import ACTOR, MODEL, PACKED, SETTINGS, measured
from verl_ispo.cpu.process_group import join_gloo_group

MEGATRON = f"{ACTOR}.megatron"
ON_CPU = (f"{MODEL}.external_lib={cpu_megatron_engine.__name__}",)
TENSOR = f"{MEGATRON}.tensor_model_parallel_size=2"
PIPELINE = f"{MEGATRON}.pipeline_model_parallel_size=2"
CONTEXT = f"{MEGATRON}.context_parallel_size=2"
VIRTUAL = f"{MEGATRON}.virtual_pipeline_model_parallel_size=2"
OVERRIDE = f"{MEGATRON}.override_transformer_config"
RECOMPUTE = f"{OVERRIDE}.recompute"
UNEVEN = f"+{OVERRIDE}.num_layers_in_first_pipeline_stage"
CHUNKED_ENTROPY = (f"{ACTOR}.entropy_from_logits_with_chunking=true", f"{ACTOR}.entropy_from_logits_chunk_size=7")
WARM_UP = f"{ACTOR}.optim.lr_warmup_steps=5"
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
        fails: whether Megatron is expected to raise an error.
    """

    settings: tuple[str, ...] = ()
    ranks: int = 1
    model: str = "untied"
    dtype: str = "float32"
    saves: bool = False
    resumes: str = ""
    fails: bool = False


VARIANTS = {
    "padded": Variant(saves=True),
    "resumed": Variant(resumes="padded"),
    "packed": Variant(PACKED_BY_ROWS),
    "dynamic": Variant(PACKED),
    "recompute": Variant((f"{RECOMPUTE}_granularity=full", f"{RECOMPUTE}_method=uniform", f"{RECOMPUTE}_num_layers=1")),
    "chunked_entropy": Variant((*PACKED, *CHUNKED_ENTROPY)),
    "bfloat16": Variant(dtype="bfloat16"),
    "tied": Variant(model="tied"),
    "lora": Variant((LORA,), saves=True),
    "lora_resumed": Variant((LORA,), resumes="lora"),
    "lora_weights": Variant((LORA, WEIGHTS), resumes="lora"),
    "warm_up": Variant((WARM_UP,), saves=True),
    "warm_up_resumed": Variant((WARM_UP, f"{ACTOR}.optim.use_checkpoint_opt_param_scheduler=true"), resumes="warm_up"),
    "warm_up_over_again": Variant((WARM_UP,), resumes="warm_up"),
    "tensor": Variant((TENSOR,), ranks=2, saves=True),
    "tensor_resumed": Variant((TENSOR,), ranks=2, resumes="tensor"),
    "tensor_dynamic": Variant((TENSOR, *PACKED, *CHUNKED_ENTROPY), ranks=2),
    "tensor_one_group": Variant((TENSOR,), ranks=2, model="one_group"),
    "tensor_lora": Variant((TENSOR, LORA, WEIGHTS), ranks=2, resumes="lora"),
    "pipeline": Variant((PIPELINE,), ranks=2, saves=True),
    "pipeline_tied": Variant((PIPELINE,), ranks=2, model="tied", saves=True),
    "pipeline_uneven": Variant((PIPELINE, f"{UNEVEN}=1"), ranks=2, model="three_layers"),
    "virtual_pipeline": Variant((PIPELINE, VIRTUAL), ranks=2),
    "context": Variant((*PACKED_BY_ROWS, CONTEXT), ranks=2),
    "context_padded": Variant((CONTEXT,), ranks=2),
    "data": Variant(ranks=2, saves=True),
    "fewer_data_ranks": Variant(resumes="data"),
    # what the preflight is to report
    "vocabulary": Variant((TENSOR,), ranks=2, model="odd_vocabulary", fails=True),
    "padded_vocabulary": Variant((TENSOR, f"+{OVERRIDE}.should_pad_vocab=true"), ranks=2, model="odd_vocabulary"),
    "layers": Variant((PIPELINE,), ranks=2, model="three_layers", fails=True),
    "virtual_layers": Variant((PIPELINE, f"{MEGATRON}.virtual_pipeline_model_parallel_size=4"), ranks=2, fails=True),
    "virtual_alone": Variant((VIRTUAL,), fails=True),
    "virtual_tied": Variant((PIPELINE, VIRTUAL), ranks=2, model="tied", fails=True),
    "fewer_tensor_ranks": Variant(resumes="tensor", fails=True),
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
    """Some variants, one after the other, as the rank that the environment names; an error is the last one's result."""
    join_gloo_group()  # the external library does so when it is imported, which was before this process was forked
    for name in names:
        start = time.monotonic()
        try:
            found = run(folder, name)
        except BaseException as error:  # torch's error of a checkpoint is no Exception
            found = {"error": f"{type(error).__name__}: {error}"}
            torch.save(found, folder / f"{name}.{os.environ['RANK']}.pt")
            raise
        torch.save(found, folder / f"{name}.{os.environ['RANK']}.pt")
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
