"""ISPO's share of the driver's work per step, in one process: the trainer's own hooks on verl's TransferQueue.

``python scripts/driver/measure_step.py REQUEST.json RESULT.json`` imports ``verl_ispo`` from the checkout that stands
first in ``PYTHONPATH``. The worker groups are stand-ins that put random log-probs into the queue.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from made_rollouts import MadeRollouts, made_rollouts, read_tokenizer
from part_clock import PartClock
from tensordict import NonTensorData, NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

FORWARD, VERL, OTHER = "forward", "verl's own", "other"
FETCH, STORE = "fetching", "storing"
ANSWERS, ROWS = "finding answers", "ablated rows"
REWARD, METRICS, LAST_TOKEN = "composite reward", "metrics", "rewards onto the last token"
PARTS = (ANSWERS, ROWS, REWARD, METRICS, LAST_TOKEN, FETCH, STORE, OTHER)
"""ISPO's own parts; what a step takes without ISPO is not among them."""

VERSIONS = {"min_global_steps": 1, "max_global_steps": 1}
UNUSED = ("actor_rollout_ref.model.path=none", "data.train_files=none")
MIB = 2**20
TRAINER = "verl_ispo.trainer.ispo_trainer"
TIMED = (
    (TRAINER, "find_answers", ANSWERS),
    (TRAINER, "ablated_rows", ROWS),
    # the names of checkouts before answers were read from the end
    (TRAINER, "find_ablated_rows", ANSWERS),
    ("verl_ispo.trainer.policy_pass", "ablated_rows", ROWS),
    (TRAINER, "ablated_answer_log_probs", ROWS),
    (TRAINER, "observe", REWARD),
    (TRAINER, "signal_metrics", METRICS),
    (TRAINER, "advantage_metrics", METRICS),
    (TRAINER, "masked_mean", METRICS),
    (TRAINER, "on_last_token", LAST_TOKEN),
)


@dataclass
class StandInWorkers:
    """verl's worker group without a model: log-probs and entropies of a batch come from a seed.

    Attributes:
        clock (`PartClock`).
        seed (`int`): of the policy's, or the reference's.
    """

    clock: PartClock
    seed: int
    _dispatch_info: dict[str, list[int]] | None = None

    def compute_log_prob(self, batch: Any) -> Any:
        """A forward over a batch of the queue, or over rows that are given."""
        with self.clock.part(FORWARD):
            generator = torch.Generator().manual_seed(self.seed)
            if not isinstance(batch, KVBatchMeta):
                return TensorDict({"log_probs": _random(batch["input_ids"], generator, -2.0)}, batch_size=len(batch))
            lengths = torch.tensor([tag["seq_len"] for tag in batch.tags])
            like = torch.nested.nested_tensor_from_jagged(
                torch.empty(int(lengths.sum())),
                lengths=None,
                offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            )
            fields = {"log_probs": _random(like, generator, -2.0)}
            if batch.extra_info["calculate_entropy"]:
                fields["entropy"] = _random(like, generator, 2.0)
            tq.kv_batch_put(
                keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
            )
            return batch

    compute_ref_log_prob = compute_log_prob


def _random(like: torch.Tensor, generator: torch.Generator, largest: float) -> torch.Tensor:
    values = largest * torch.rand(like.values().numel(), generator=generator)
    return torch.nested.nested_tensor_from_jagged(values, like.offsets())


def nested(rows: list[np.ndarray]) -> torch.Tensor:
    """A jagged tensor of rows."""
    lengths = torch.tensor([len(row) for row in rows])
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return torch.nested.nested_tensor_from_jagged(torch.from_numpy(np.concatenate(rows)), offsets)


def put_rollouts(rollouts: MadeRollouts, group: int) -> KVBatchMeta:
    """The rollouts in the queue, with the fields that verl's agent loop writes."""
    count = len(rollouts.responses)
    responses, prompts = nested(rollouts.responses), nested(rollouts.prompts)
    positions = [
        np.arange(len(head) + len(tail)) for head, tail in zip(rollouts.prompts, rollouts.responses, strict=True)
    ]
    scores = torch.zeros(responses.values().numel())
    scores[responses.offsets()[1:] - 1] = torch.from_numpy(rollouts.correct).float()
    keys = [f"prompt{row // group}_{row % group}_0" for row in range(count)]
    tags = [
        {"prompt_len": len(head), "response_len": len(tail), "seq_len": len(head) + len(tail), **VERSIONS}
        for head, tail in zip(rollouts.prompts, rollouts.responses, strict=True)
    ]
    truths = [{"ground_truth": str(row // group), "style": "rule"} for row in range(count)]
    fields = {
        "prompts": prompts,
        "responses": responses,
        "input_ids": nested([np.concatenate(row) for row in zip(rollouts.prompts, rollouts.responses, strict=True)]),
        "position_ids": nested(positions),
        "num_turns": torch.full((count,), 2),
        "response_mask": torch.nested.nested_tensor_from_jagged(
            torch.ones_like(responses.values()), responses.offsets()
        ),
        "rm_scores": torch.nested.nested_tensor_from_jagged(scores, responses.offsets()),
        "uid": objects([key.rsplit("_", 2)[0] for key in keys]),
        "reward_model": objects(truths),
        "extra_info": objects([{"index": row // group, "split": "train"} for row in range(count)]),
        "extra_fields": objects([{"reward_extra_info": {"acc": bool(one)}} for one in rollouts.correct]),
    }
    tq.kv_batch_put(keys=keys, partition_id="train", fields=TensorDict(fields, batch_size=count), tags=tags)
    return KVBatchMeta(keys=keys, tags=tags, partition_id="train")


def objects(values: list[Any]) -> NonTensorStack:
    """A field of Python objects."""
    return NonTensorStack(*[NonTensorData(value) for value in values])


def input_bytes(rollouts: MadeRollouts) -> int:
    """Size of what the trainer reads of a batch: ids, mask, scores, log-probs twice, entropies; prompts."""
    return 32 * sum(map(len, rollouts.responses)) + 8 * sum(map(len, rollouts.prompts))


def make_trainer(clock: PartClock, tokenizer: Any) -> Any:
    """The synchronous ISPO trainer with stand-ins for its workers, as after its set-up."""
    from verl_ispo.preflight.composition import compose_config
    from verl_ispo.trainer.modes import ISPOTrainerSync

    config = compose_config("ispo_trainer", (*UNUSED, "actor_rollout_ref.rollout.calculate_log_probs=false"))
    trainer = ISPOTrainerSync(config)
    trainer.tokenizer, trainer.processor = tokenizer, None
    trainer.ref_in_actor = False
    trainer.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 1)
    trainer.actor_rollout_wg = StandInWorkers(clock, seed=1)
    trainer.ref_policy_wg = StandInWorkers(clock, seed=2)
    trainer.global_steps, trainer.timing_raw = 2, {}
    trainer.__dict__["_end_of_sequence"] = [tokenizer.eos_token_id]
    return trainer


def digest(batch: KVBatchMeta, metrics: dict[str, float]) -> str:
    """A hash of what the step gave: advantages, scores, and every metric of ISPO and of verl's rewards."""
    names = ["advantages", "returns", "rm_scores"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=names)
    found = hashlib.sha256()
    for name in names:
        found.update(data[name].values().numpy().tobytes())
    kept = {name: float(value) for name, value in metrics.items() if name.startswith(("ispo/", "critic/"))}
    found.update(json.dumps(kept, sort_keys=True).encode())
    return found.hexdigest()[:16]


def one_step(trainer: Any, batch: KVBatchMeta, clock: PartClock) -> dict[str, float]:
    """The hooks of a step that ISPO works in; returns the metrics."""
    metrics: dict[str, float] = {}
    with clock.part(OTHER):
        batch = trainer._compute_old_log_prob(batch, metrics=metrics)
        batch = trainer._compute_ref_log_prob(batch, metrics=metrics)
        trainer._compute_advantage(batch, metrics=metrics)
        trainer._compute_metrics(batch, metrics, {"step": 1.0, "gen": 1.0}, global_steps=2, epoch=0)
    return metrics


def timed_step(trainer: Any, batch: KVBatchMeta, clock: PartClock, rollouts: MadeRollouts) -> dict[str, Any]:
    """Run a step and say what it took."""
    clock.reset()
    metrics = one_step(trainer, batch, clock)
    return {
        "wall_s": {part: clock.wall_s[part] for part in (*PARTS, VERL)},
        "cpu_s": {part: clock.cpu_s[part] for part in (*PARTS, VERL)},
        "extra_mib": clock.peak_bytes / MIB,
        "inputs_mib": input_bytes(rollouts) / MIB,
        "digest": digest(batch, metrics),
    }


def main() -> int:
    request, result_path = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    warnings.simplefilter("ignore")
    import verl_ispo

    torch.set_num_threads(request["threads"])
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tq.init()
    tokenizer = read_tokenizer(request["tokenizer"])
    clock = PartClock(not_ours={FORWARD, VERL})
    trainer = make_trainer(clock, tokenizer)
    time_parts(clock)
    steps = []
    for size in request["sizes"]:
        rollouts = made_rollouts(
            tokenizer, size["rollouts"], size["tokens"], request["group"], size["answered"], request["seed"]
        )
        batch = put_rollouts(rollouts, request["group"])
        for repeat in range(1 + request["repeats"]):
            step = timed_step(trainer, batch, clock, rollouts)
            total_s = sum(step["wall_s"][part] for part in PARTS)
            print(f"  step {repeat}: {total_s:.2f} s", file=sys.stderr, flush=True)
            steps.append({**size, "first": repeat == 0, **step})
        tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
    result_path.write_text(json.dumps({"loaded": verl_ispo.__file__, "steps": steps}))
    tq.close()
    ray.shutdown()
    return 0


def time_parts(clock: PartClock) -> None:
    """Put the clock around the functions whose time the table shows."""
    for module, name, part in TIMED:
        clock.time_calls(module, name, part)
    for name in ("_compute_old_log_prob", "_compute_ref_log_prob", "_compute_advantage", "_compute_metrics"):
        clock.time_calls("verl.trainer.ppo.v1.trainer_base", f"PPOTrainer.{name}", VERL)
    clock.time_calls("transfer_queue", "kv_batch_get", FETCH, unless={VERL, FORWARD})
    clock.time_calls("transfer_queue", "kv_batch_put", STORE, unless={VERL, FORWARD})


if __name__ == "__main__":
    sys.exit(main())
