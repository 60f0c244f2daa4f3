"""Run verl's actor worker in this process, without Ray, and write what each setting computes from the same rows.

``python -m tests.trainer.engine_process FOLDER VARIANT...``, once for each rank, with RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT in the environment. FOLDER holds the model; rank r writes ``r.pt`` there, see `Variant` in
test_engine_features. tests/megatron/engine_process.py does the same with Megatron.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.padding import response_from_nested

from tests.trainer.engine_rows import ADVANTAGES, PROMPTS, RESPONSES, TEMPERATURE
from verl_ispo.signals.answer_span import AnswerSpans, find_answer_spans
from verl_ispo.trainer.ablated_forward import ablated_answer_log_probs, ablated_rows
from verl_ispo.trainer.forward_rows import forward_rows, with_forward_settings

ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
SAVED = "lora/global_step_1"
# Of every variant, on either engine. Megatron leaves biases and norms out of the weight decay, and FSDP does not.
SETTINGS = (
    "backend=cpu",
    "method=grpo",
    f"{ACTOR}.ppo_mini_batch_size=4",
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=2",
    f"{ACTOR}.optim.lr=1e-2",
    f"{ACTOR}.optim.weight_decay=0",
    f"{ACTOR}.optim.total_training_steps=10",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module=null",
)
PACKED = (
    f"{MODEL}.use_remove_padding=true",
    f"{ACTOR}.use_dynamic_bsz=true",
    f"{ACTOR}.ppo_max_token_len_per_gpu=64",
)
FUSED = (f"{MODEL}.use_fused_kernels=true", f"{MODEL}.fused_kernel_options.impl_backend=torch")
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "gradient_checkpointing": (f"{MODEL}.enable_gradient_checkpointing=true",),
    "packed": PACKED,
    "offload": (f"{ACTOR}.fsdp_config.param_offload=true", f"{ACTOR}.fsdp_config.optimizer_offload=true"),
    "entropy": (
        *PACKED,
        f"{ACTOR}.entropy_from_logits_with_chunking=true",
        f"{ACTOR}.entropy_from_logits_chunk_size=7",
    ),
    "entropy_checkpointing": (f"{ACTOR}.entropy_checkpointing=true",),
    "lora": (f"{MODEL}.lora_rank=4",),
    "ulysses": (*PACKED, f"{ACTOR}.ulysses_sequence_parallel_size=2"),
    # last: verl changes the model's class for these
    "fused": FUSED,
    "fused_packed": (*FUSED, *PACKED),
}


def rollouts_and_ablated(share: int, shares: int) -> tuple[TensorDict, TensorDict, AnswerSpans]:
    """One data-parallel share of the rows. Tokens are bytes, as in the tiny task's tokenizer."""

    def tokens(texts: list[str]) -> list[torch.Tensor]:
        return [torch.tensor(list(text.encode())) for text in texts[share::shares]]

    prompts, responses = tokens(PROMPTS), tokens(RESPONSES)
    spans = find_answer_spans([response.tolist() for response in responses], lambda token: chr(token))
    return forward_rows(prompts, responses), ablated_rows(prompts, responses, spans), spans


def forward(worker: ActorRolloutRefWorker, rows: TensorDict, entropy: bool, **extra: bool) -> TensorDict | None:
    """verl's ``compute_log_prob`` of the rows; `None` on a rank that verl does not collect from."""
    data = with_forward_settings(rows.clone(), TEMPERATURE)
    tu.assign_non_tensor(data, calculate_entropy=entropy, **extra)
    return worker.compute_log_prob(data)


def of_responses(output: TensorDict, name: str, rows: TensorDict) -> torch.Tensor:
    """One value per response token, row after row."""
    return response_from_nested(output[name], rows["response_mask"]).values()


def with_ablated(rollouts: TensorDict, ablated: TensorDict) -> TensorDict:
    """Rollouts and ablated rows in one batch, the latter without a loss, as in `merged_forward`."""
    heads, tails = ([*rollouts[part].unbind(), *ablated[part].unbind()] for part in ("prompts", "responses"))
    rows = forward_rows(heads, tails)
    masks = [
        *rollouts["response_mask"].unbind(),
        *(torch.zeros_like(mask) for mask in ablated["response_mask"].unbind()),
    ]
    rows["response_mask"] = rows["loss_mask"] = torch.nested.as_nested_tensor(masks, layout=torch.jagged)
    return rows


def of_every_rank(worker: ActorRolloutRefWorker, values: torch.Tensor | None) -> torch.Tensor:
    """What only the rank that verl collects from has, on all ranks that share its rows."""
    engine, ranks = worker.actor.engine, torch.distributed.get_world_size()
    if engine.get_data_parallel_size() == ranks:
        return values
    gathered: list = [None] * ranks
    torch.distributed.all_gather_object(gathered, (engine.get_data_parallel_rank(), values))
    return next(found for share, found in gathered if share == engine.get_data_parallel_rank() and found is not None)


def update(worker: ActorRolloutRefWorker, rows: TensorDict, old: TensorDict | None) -> dict | None:
    """One optimizer step on made-up advantages, called as in the trainer; `None` where verl collects nothing."""
    engine, data = worker.actor.engine, rows.clone()
    values = ADVANTAGES[engine.get_data_parallel_rank() :: engine.get_data_parallel_size()]
    log_probs = of_every_rank(worker, None if old is None else of_responses(old, "log_probs", rows))
    lengths = rows["responses"].offsets().diff().tolist()
    data["old_log_probs"] = torch.nested.as_nested_tensor(list(log_probs.split(lengths)), layout=torch.jagged)
    data["advantages"] = torch.nested.as_nested_tensor(
        [torch.full(mask.shape, value) for mask, value in zip(rows["response_mask"].unbind(), values, strict=True)],
        layout=torch.jagged,
    )
    tu.assign_non_tensor(
        data,
        calculate_entropy=False,
        global_batch_size=len(PROMPTS),
        mini_batch_size=len(PROMPTS),
        epochs=1,
        seed=1,
        dataloader_kwargs={"shuffle": False},
        temperature=TEMPERATURE,
    )
    output = worker.update_actor(data)
    return None if output is None else tu.get(output, "metrics")


def measured(
    worker: ActorRolloutRefWorker, has_adapter: bool, after_update: Callable[[], None] = lambda: None
) -> dict[str, torch.Tensor | str]:
    """Forwards, two updates, and the forward after each; the error where verl raises one.

    Nothing on a rank that verl does not collect from.
    """
    engine = worker.actor.engine
    rollouts, ablated, spans = rollouts_and_ablated(engine.get_data_parallel_rank(), engine.get_data_parallel_size())
    together = with_ablated(rollouts, ablated)
    try:
        old, without_trace = forward(worker, rollouts, entropy=True), forward(worker, ablated, entropy=False)
        merged = forward(worker, together, entropy=True)
    except RuntimeError as error:
        return {"error": str(error)}
    metrics = update(worker, rollouts, old)
    first = forward(worker, rollouts, entropy=False)
    after_update()
    second_metrics = update(worker, rollouts, first)
    second = forward(worker, rollouts, entropy=False)
    off = forward(worker, rollouts, entropy=False, no_lora_adapter=True) if has_adapter else None
    if old is None:
        return {}

    def answers(output: TensorDict, first_row: int = 0) -> torch.Tensor:
        log_probs = response_from_nested(output["log_probs"], (together if first_row else ablated)["response_mask"])
        rows = torch.nested.as_nested_tensor(list(log_probs.unbind())[first_row:], layout=torch.jagged)
        return ablated_answer_log_probs(rows, spans)

    lengths = rollouts["responses"].offsets().diff()
    found = {
        "lengths": lengths,
        "log_probs": of_responses(old, "log_probs", rollouts),
        "entropy": of_responses(old, "entropy", rollouts),
        "answer": answers(without_trace),
        "merged_log_probs": of_responses(merged, "log_probs", together)[: lengths.sum()],
        "merged_entropy": of_responses(merged, "entropy", together)[: lengths.sum()],
        "merged_answer": answers(merged, len(lengths)),
        "grad_norm": torch.tensor(metrics["grad_norm"]),
        "lr": torch.tensor([metrics["lr"], second_metrics["lr"]], dtype=torch.float64).flatten(),
        "updated": of_responses(first, "log_probs", rollouts),
        "updated_twice": of_responses(second, "log_probs", rollouts),
    }
    if off is not None:
        found["adapter_off"] = of_responses(off, "log_probs", rollouts)
    return found


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    found = {}
    for name in names:
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose("ispo_trainer", [*SETTINGS, f"{MODEL}.path={folder}", *VARIANTS[name]])
        torch.manual_seed(0)
        worker = ActorRolloutRefWorker(config.actor_rollout_ref, role="actor")
        worker.init_model()
        save = partial(worker.save_checkpoint, str(folder / SAVED / "actor"), global_step=1)
        has_adapter = config.actor_rollout_ref.model.lora_rank > 0
        found[name] = measured(worker, has_adapter, after_update=save if has_adapter else lambda: None)
    torch.save(found, folder / f"{worker.rank}.pt")


if __name__ == "__main__":
    main()
