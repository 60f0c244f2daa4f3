"""Run verl's actor worker in this process, without Ray, and write what each setting computes from the same rows.

``python -m tests.trainer.engine_process FOLDER VARIANT...``, once for each rank, with RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT in the environment. FOLDER holds the model; rank r writes ``r.pt`` there, see `Variant` in
test_engine_features.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.padding import response_from_nested

from verl_ispo.signals.answer_span import AnswerSpans, find_answer_spans
from verl_ispo.trainer.ablated_forward import ablated_answer_log_probs, ablated_rows
from verl_ispo.trainer.forward_rows import forward_rows, with_forward_settings

ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
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
PROMPTS = ["2+3=", "10-4=", "7*6=", "what is 1+1? "]
RESPONSES = ["two and three: \\boxed{5}.", "\\boxed{6}", "6*7=42, so \\boxed{42}", "I do not know"]
ADVANTAGES = [1.0, -0.5, 0.25, -0.75]
TEMPERATURE = 0.7


def rollouts_and_ablated(rank: int, ranks: int) -> tuple[TensorDict, TensorDict, AnswerSpans]:
    """This rank's share of the rows. Tokens are bytes, as in the tiny task's tokenizer."""

    def share(texts: list[str]) -> list[torch.Tensor]:
        return [torch.tensor(list(text.encode())) for text in texts[rank::ranks]]

    prompts, responses = share(PROMPTS), share(RESPONSES)
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


def update(worker: ActorRolloutRefWorker, rows: TensorDict, old: TensorDict, ranks: int) -> dict:
    """One optimizer step on made-up advantages, called as in the trainer."""
    data, values = rows.clone(), ADVANTAGES[worker.rank % ranks :: ranks]
    data["old_log_probs"] = response_from_nested(old["log_probs"], rows["response_mask"])
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
    return tu.get(worker.update_actor(data), "metrics")


def measured(
    worker: ActorRolloutRefWorker,
    rollouts: TensorDict,
    ablated: TensorDict,
    spans: AnswerSpans,
    ranks: int,
    has_adapter: bool,
) -> dict[str, torch.Tensor | str]:
    """Forwards, an update, and the forward after it; the error where verl raises one."""
    try:
        old, without_trace = forward(worker, rollouts, entropy=True), forward(worker, ablated, entropy=False)
    except RuntimeError as error:
        return {"error": str(error)}
    if old is None or without_trace is None:
        return {}
    found = {
        "lengths": rollouts["responses"].offsets().diff(),
        "log_probs": of_responses(old, "log_probs", rollouts),
        "entropy": of_responses(old, "entropy", rollouts),
        "answer": ablated_answer_log_probs(
            response_from_nested(without_trace["log_probs"], ablated["response_mask"]), spans
        ),
    }
    if worker.world_size > ranks:  # the other ranks of the sequence would have to step along
        return found
    found["grad_norm"] = torch.tensor(update(worker, rollouts, old, ranks)["grad_norm"])
    found["updated"] = of_responses(forward(worker, rollouts, entropy=False), "log_probs", rollouts)
    if has_adapter:
        off = forward(worker, rollouts, entropy=False, no_lora_adapter=True)
        found["adapter_off"] = of_responses(off, "log_probs", rollouts)
    return found


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    found = {}
    for name in names:
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose(
                "ispo_trainer",
                [
                    "backend=cpu",
                    "method=grpo",
                    f"{MODEL}.path={folder}",
                    f"{ACTOR}.ppo_mini_batch_size=4",
                    f"{ACTOR}.ppo_micro_batch_size_per_gpu=2",
                    f"{ACTOR}.optim.lr=1e-2",
                    f"{ACTOR}.optim.total_training_steps=10",
                    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
                    "actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module=null",
                    *VARIANTS[name],
                ],
            )
        torch.manual_seed(0)
        worker = ActorRolloutRefWorker(config.actor_rollout_ref, role="actor")
        worker.init_model()
        ranks = worker.world_size // config.actor_rollout_ref.actor.ulysses_sequence_parallel_size
        rollouts, ablated, spans = rollouts_and_ablated(worker.rank % ranks, ranks)
        has_adapter = config.actor_rollout_ref.model.lora_rank > 0
        found[name] = measured(worker, rollouts, ablated, spans, ranks, has_adapter)
    torch.save(found, folder / f"{worker.rank}.pt")


if __name__ == "__main__":
    main()
